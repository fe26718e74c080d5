"""What `rwkv generate` gives out, for every way to ask; in one process, with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import Cli

GO = ("--seed", "7", "-t", "1")


# Streams of the answer


def test_stdout_is_exactly_the_models_bytes(cli: Cli, tiny: Path) -> None:
    plain = cli("generate", "-m", tiny, *GO, "-N", "20", "hi")
    as_json = json.loads(cli("generate", "-m", tiny, *GO, "-N", "20", "hi", "--json").out)
    assert plain.code == 0
    assert plain.out.decode("utf-8", "replace") == as_json["text"]
    assert len(plain.out) == as_json["usage"]["completion_tokens"]  # a byte each, and no newline


def test_a_seed_makes_the_answer_repeat(cli: Cli, tiny: Path) -> None:
    first, again, other = (
        cli("generate", "-m", tiny, "--seed", seed, "-N", "20", "hi").out for seed in "778"
    )
    assert first == again != other


def test_quiet_says_nothing_on_stderr(cli: Cli, tiny: Path) -> None:
    assert cli("generate", "-m", tiny, "-N", "2", "-q", "hi").err == ""


def test_the_figures_come_on_stderr(cli: Cli, tiny: Path) -> None:
    err = cli("generate", "-m", tiny, *GO, "-N", "2", "-v", "hi").err
    assert all(part in err for part in ("mode raw", "seed 7", "2 tokens", "-N"))


def test_a_file_gets_the_answer_instead_of_stdout(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    file.write_bytes(b"something longer that was there before")
    wanted = cli("generate", "-m", tiny, *GO, "-N", "9", "hi").out
    result = cli("generate", "-m", tiny, *GO, "-N", "9", "hi", "-o", file)
    assert (result.out, file.read_bytes()) == (b"", wanted)


def test_a_failure_before_the_answer_leaves_the_file_as_it_was(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    file.write_text("precious")
    assert cli("generate", "-m", "nosuch", "-o", file, "hi").code == 3
    assert file.read_text() == "precious"


def test_echo_gives_the_prompt_first(cli: Cli, tiny: Path) -> None:
    plain = cli("generate", "-m", tiny, *GO, "-N", "5", "hi").out
    assert cli("generate", "-m", tiny, *GO, "-N", "5", "hi", "--echo").out == b"hi" + plain


def test_json_holds_text_and_figures(cli: Cli, tiny: Path) -> None:
    answer = json.loads(cli("generate", "-m", tiny, *GO, "-N", "5", "hi", "--json").out)
    assert answer["model"] == "tiny"
    assert answer["mode"] == "raw"
    assert answer["finish_reason"] == "length"
    assert answer["usage"] == {
        "prompt_tokens": 2, "cached_tokens": 0, "completion_tokens": 5, "position": 7,
    }  # fmt: skip
    assert answer["seed"] == 7
    assert set(answer["timing"]) == {
        "load_s", "prefill_s", "first_token_s", "decode_s", "s_per_token"
    }  # fmt: skip
    assert answer["sampler"]["order"] == "rwkv"
    assert answer["version"]


def test_words_need_no_quotes(cli: Cli, tiny: Path) -> None:
    quoted = cli("generate", "-m", tiny, *GO, "-N", "5", "tell me a joke").out
    assert cli("generate", "-m", tiny, *GO, "-N", "5", "tell", "me", "a", "joke").out == quoted


# What is read


@pytest.mark.parametrize(
    ("arguments", "stdin", "mode"),
    [
        (["hi"], None, "raw"),
        ([], b"hi", "raw"),
        (["hi"], b"", "raw"),
        (["hi"], b"a document", "chat"),
        (["-s", "Be kind.", "hi"], None, "chat"),
        (["-s", "", "hi"], None, "chat"),
        (["--chat", "hi"], None, "chat"),
        (["--raw", "hi"], b"a document", "raw"),
        (["-f", "FILE"], None, "raw"),
        (["-f", "FILE", "hi"], None, "chat"),
        (["-f", "-"], b"hi", "raw"),
        (["-f", "-", "hi"], b"a document", "chat"),
        (["-f", "-", "hi"], b"", "chat"),
    ],
)
def test_the_mode_follows_from_what_is_given(
    cli: Cli, tiny: Path, tmp_path: Path, arguments: list[str], stdin: bytes | None, mode: str
) -> None:
    file = tmp_path / "document.txt"
    file.write_text("a document")
    given = [str(file) if a == "FILE" else a for a in arguments]
    result = cli("generate", "-m", tiny, *GO, "-N", "1", "--json", *given, stdin=stdin)
    assert json.loads(result.out)["mode"] == mode


def test_a_chat_turn_is_written_in_the_models_format(cli: Cli, tiny: Path) -> None:
    given = ("generate", "-m", tiny, *GO, "-N", "1", "--echo")
    shown = cli(*given, "-s", "Be kind.", "What is\n\nthis?", stdin=b"\xef\xbb\xbfA text.\r\n").out
    assert shown[:-1] == b"System: Be kind.\n\nUser: A text.\nWhat is\nthis?\n\nAssistant:"


def test_raw_text_is_read_as_it_is(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "document.txt"
    file.write_bytes(b"\xef\xbb\xbfone \r\n\n\n")
    shown = cli(
        "generate", "-m", tiny, *GO, "-N", "1", "--echo", "--raw", "-f", file, " two ",
        stdin=b"\xef\xbb\xbf caf\xe9\n",
    ).out  # fmt: skip
    assert shown[:-1] == b"one \r\n\n\n caf\xe9\n two "


def test_prompt_tokens_are_read_as_they_are(cli: Cli, tiny: Path) -> None:
    text = cli("generate", "-m", tiny, *GO, "-N", "5", "hi", "--echo").out
    ids = cli("generate", "-m", tiny, *GO, "-N", "5", "--prompt-tokens", "104, 105", "--echo").out
    assert text == ids


@pytest.mark.parametrize("given", [[], [""], ["--prompt-tokens", ""], ["-f", "EMPTY"]])
def test_nothing_to_continue_is_an_error(
    cli: Cli, tiny: Path, tmp_path: Path, given: list[str]
) -> None:
    (tmp_path / "empty").touch()
    arguments = [str(tmp_path / "empty") if a == "EMPTY" else a for a in given]
    result = cli("generate", "-m", tiny, *arguments)
    assert (result.code, result.out) == (2, b"")
    assert "prompt" in result.err


# States


def test_a_run_in_two_parts_equals_one_run(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    state = tmp_path / "half.rwkvstate"
    flags = ("-m", tiny, "--seed", "7", "--presence", "1", "--frequency", "0.5", "--top-p", "0.9")
    whole = cli("generate", *flags, "-N", "40", "hi").out
    first = cli("generate", *flags, "-N", "15", "hi", "--save-state", state).out
    second = cli("generate", "-m", tiny, "-N", "25", "--state", state).out
    assert first + second == whole


def test_flags_overrule_what_a_state_was_saved_with(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    state = tmp_path / "half.rwkvstate"
    cli("generate", "-m", tiny, *GO, "--temperature", "2", "-N", "1", "hi", "--save-state", state)
    flags = ("-m", tiny, "-N", "3", "--state", state, "--json")
    kept = json.loads(cli("generate", *flags).out)
    overruled = json.loads(cli("generate", *flags, "--temperature", "0", "--seed", "9").out)
    assert (kept["sampler"]["temperature"], kept["seed"]) == (2, 7)
    assert (overruled["sampler"]["temperature"], overruled["seed"]) == (0, 9)


def test_a_chat_turn_on_a_saved_state_begins_after_a_blank_line(
    cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    state = tmp_path / "book.rwkvstate"
    ids = ",".join(map(str, b"a book\n"))
    cli("generate", "-m", tiny, *GO, "-N", "1", "--prompt-tokens", ids, "--save-state", state)
    shown = cli(
        "generate", "-m", tiny, *GO, "-N", "1", "--state", state, "--echo", "--chat", "Who?"
    ).out
    assert shown[:-1] == b"\n\nUser: Who?\n\nAssistant:"


@pytest.mark.parametrize(
    ("text", "given"), [("a book\n\n", b""), ("a book\n", b"\n"), ("x", b"\n\n")]
)
def test_what_the_state_ends_with_is_not_repeated(text: str, given: bytes) -> None:
    from rwkv_cli.text.templates import beginning, load_template

    assert beginning(load_template("world"), text.encode()).encode() == given


def test_a_state_of_another_model_is_refused(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    state = tmp_path / "x.rwkvstate"
    cli("generate", "-m", tiny, *GO, "-N", "1", "hi", "--save-state", state)
    result = cli("generate", "-m", "demo", "-N", "1", "--state", state)
    assert result.code == 4


def test_a_damaged_state_is_refused(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    state = tmp_path / "x.rwkvstate"
    state.write_bytes(b"no state at all")
    result = cli("generate", "-m", tiny, "-N", "1", "--state", state, "hi")
    assert result.code == 6


# Stops and lengths


def test_a_stop_text_ends_the_answer_before_it(cli: Cli, tiny: Path) -> None:
    whole = cli("generate", "-m", tiny, *GO, "-N", "40", "hi").out
    stop = bytes([next(byte for byte in whole[10:] if 0 < byte < 0x80)])
    shown = cli("generate", "-m", tiny, *GO, "-N", "40", "hi", "--stop", stop.decode())
    assert shown.out == whole[: whole.index(stop)]
    assert "stop text" in shown.err


@pytest.mark.parametrize(("text", "count"), [("20", 20), ("1k", 1000), ("1K", 1000)])
def test_lengths_may_be_written_in_thousands(cli: Cli, tiny: Path, text: str, count: int) -> None:
    result = cli("generate", "-m", tiny, *GO, "-N", text, "hi", "--ban", "0")
    assert len(result.out) == count
