"""What `rwkv generate` refuses, and where its settings and models come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import Cli

from rwkv_cli.cli.settings import collect
from rwkv_cli.engine.strategy import Strategy

GO = ("--seed", "7", "-t", "1")


@pytest.fixture
def models(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("RWKV-x070-World-1.5B-v3", "RWKV-x070-World-2.9B-v3", "other"):
        (folder / f"{name}.safetensors").symlink_to(tiny)
    monkeypatch.setenv("RWKV_MODELS_DIR", str(folder))
    return folder


# Errors


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "warm"], "--temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--temperature", "inf"], "temperature"),
        (["--top-p", "1.1"], "top-p"),
        (["--top-k", "-1"], "top-k"),
        (["--top-k", "1.5"], "--top-k"),
        (["--min-p", "2"], "min-p"),
        (["--presence", "99"], "presence"),
        (["--frequency", "nan"], "frequency"),
        (["--penalty-decay", "2"], "penalty-decay"),
        (["--sampler-order", "x"], "sampler-order"),
        (["--ban", "-1"], "--ban"),
        (["--ban", "x"], "--ban"),
        (["--ban", "256"], "--ban"),
        (["--seed", "-1"], "seed"),
        (["--seed", str(2**64)], "seed"),
        (["-N", "0"], "max-tokens"),
        (["-N", "4kk"], "-N"),
        (["-N", "k"], "-N"),
        (["-N", ""], "-N"),
        (["-t", "0"], "threads"),
        (["--dtype", "x"], "dtype"),
        (["--device", "x"], "device"),
        (["--strategy", "x"], "strategy"),
        (["--kernels", "x"], "kernels"),
        (["--kernels", "cuda", "--device", "cpu"], "--device cuda"),
        (["--kernels", "cuda", "--device", "cuda", "--engine", "torch"], "--kernels auto"),
        (["--template", "x"], "chat format"),
        (["--tokenizer", "x"], "tokenizer"),
        (["--stop", ""], "stop"),
        (["--think", "on"], "--chat"),
        (["--chat", "--think", "x"], "think"),
        (["--raw", "-s", "x"], "--raw"),
        (["--prompt-tokens", "1"], "--prompt-tokens"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--temprature", "1"], "--temperature"),
    ],
)
def test_a_flag_that_makes_no_sense_is_named(
    cli: Cli, tiny: Path, flags: list[str], name: str
) -> None:
    result = cli("generate", "-m", tiny, "hi", "-N", "1", *flags)
    assert (result.code, result.out) == (2, b"")
    assert name in result.err
    assert result.err.startswith("rwkv: ")


@pytest.mark.parametrize("flags", [["--temperature", "-1"], ["--stop", ""], ["--device", "x"]])
def test_flags_are_checked_before_the_model_is_looked_for(cli: Cli, flags: list[str]) -> None:
    assert cli("generate", "-m", "nosuch", "hi", *flags).code == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--state", "none.rwkvstate"], 3),
        (["--save-state", "none/x.rwkvstate"], 3),
        (["-o", "none/x"], 3),
        (["-f", "none"], 3),
        (["-f", "."], 6),
        (["-o", "."], 5),
        (["--save-state", "."], 5),
        (["--prompt-tokens", "x"], 2),
    ],
)
def test_files_that_cannot_be_used_are_errors(cli: Cli, arguments: list[str], code: int) -> None:
    result = cli("generate", *arguments, *([] if "--prompt-tokens" in arguments else ["hi"]))
    assert (result.code, result.out) == (code, b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generat", "hi"], "did you mean rwkv generate?"),
        (["downlaod", "1b5"], "did you mean rwkv download?"),
        (["nonsense"], "rwkv --help"),
        (["-m", "demo", "generate"], "options come after the command"),
        (["help", "nonsense"], "'nonsense'"),
    ],
)
def test_an_unknown_command_is_met_with_advice(cli: Cli, arguments: list[str], said: str) -> None:
    result = cli(*arguments)
    assert (result.code, result.out) == (2, b"")
    assert said in result.err


def test_strangers_text_in_an_error_cannot_drive_a_terminal(cli: Cli) -> None:
    nasty = "\x1b]0;title\x07\x9b31m\u202e"
    for arguments in (
        [nasty],
        ["generate", "-m", nasty, "hi"],
        ["generate", "--temperature", nasty],
    ):
        err = cli(*arguments).err
        assert not set(err) & set(nasty) - set("title031m];0")


def test_a_file_is_not_written_while_it_is_read(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "book").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "book")
    result = cli("generate", "-m", tiny, "-f", tmp_path / "book", "-o", tmp_path / "link", "--echo")
    assert result.code == 2
    assert (tmp_path / "book").read_text() == "precious"


def test_a_complaint_is_one_sentence_and_one_hint(cli: Cli) -> None:
    for arguments in (
        ["completion"],
        ["info"],
        ["completion", "tcsh"],
        ["generate", "--seed", "x"],
    ):
        result = cli(*arguments)
        assert result.code == 2
        assert [line[:2] for line in result.err.splitlines()] == ["rw", "  "]


# Models


def test_an_unknown_model_is_met_with_a_suggestion(cli: Cli, models: Path) -> None:
    result = cli("generate", "-m", "othr", "hi")
    assert result.code == 3
    assert "did you mean other?" in result.err


def test_a_file_that_is_no_model_is_refused(cli: Cli, tmp_path: Path) -> None:
    for content in (b"", b"#!/bin/sh\n", bytes(1000)):
        (tmp_path / "no.pth").write_bytes(content)
        assert cli("generate", "-m", tmp_path / "no.pth", "hi").code == 6


@pytest.mark.parametrize("name", ["RWKV-x070-World-1.5B-v3", "1.5b", "1b5", "world-1b5", "OTHER"])
def test_an_installed_model_is_found_by_a_part_of_its_name(
    cli: Cli, models: Path, name: str
) -> None:
    assert cli("generate", "-m", name, "-N", "1", "hi").code == 0


def test_a_part_that_several_models_have_is_refused(cli: Cli, models: Path) -> None:
    result = cli("generate", "-m", "world", "hi")
    assert result.code == 3
    assert all(name in result.err for name in ("1.5B", "2.9B"))


def test_without_models_the_demo_answers_and_says_so_in_one_line(cli: Cli) -> None:
    result = cli("generate", "-N", "1", "hi")
    assert result.code == 0
    assert sum("demo" in line for line in result.err.splitlines()) == 1


# Settings


def test_flags_come_before_the_environment_and_that_before_the_config_file(
    cli: Cli, env: dict[str, str], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sampler(*flags: str) -> dict[str, object]:
        result = cli("generate", "-m", tiny, "-N", "1", "hi", "--json", *flags)
        found: dict[str, object] = json.loads(result.out)["sampler"]
        return found

    preset = sampler()
    Path(env["RWKV_CONFIG"]).write_text("temperature = 2\ntop_p = 0.25\nmin_p = 0.5\n")
    monkeypatch.setenv("RWKV_TOP_P", "0.75")
    monkeypatch.setenv("RWKV_MIN_P", "0.125")
    merged = sampler("--min-p", "0.0625")
    assert preset["temperature"] == 1
    assert (merged["temperature"], merged["top_p"], merged["min_p"]) == (2, 0.75, 0.0625)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("temprature = 1", "config.toml: unknown setting 'temprature'"),
        ("temprature = 1", "did you mean temperature?"),
        ("temperature = 'warm'", "temperature must be a number"),
        ("temperature = true", "temperature must be a number"),
        ("temperature = 1" + "0" * 400, "temperature must be a number"),
        ("max_tokens = 3.5", "max_tokens must be a whole number"),
        ("max_tokens = 0", "max-tokens"),
        ("model = 3", "model must be a text"),
        ("temperature = ", "TOML"),
        ("a = " + "[" * 5000, "TOML"),
        ("seed = " + "9" * 5000, "TOML"),
    ],
)
def test_a_config_file_that_makes_no_sense_is_an_error(
    cli: Cli, env: dict[str, str], text: str, said: str
) -> None:
    Path(env["RWKV_CONFIG"]).write_text(text)
    result = cli("generate", "hi")
    assert result.code == 2
    assert said in result.err


def test_a_config_file_that_is_no_text_is_an_error(cli: Cli, env: dict[str, str]) -> None:
    Path(env["RWKV_CONFIG"]).write_bytes(b"\xff\xfe")
    assert cli("generate", "hi").code == 2
    Path(env["RWKV_CONFIG"]).unlink()
    Path(env["RWKV_CONFIG"]).mkdir()
    assert cli("generate", "hi").code == 2


def test_lengths_in_thousands_are_settings_too(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RWKV_MAX_TOKENS", "1k")
    assert len(cli("generate", "-m", tiny, *GO, "hi", "--ban", "0").out) == 1000


def test_a_system_text_among_the_settings_makes_no_chat_of_a_text(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RWKV_SYSTEM", "Be kind.")
    raw = cli("generate", "-m", tiny, *GO, "-N", "1", "--echo", "hi").out
    chat = cli("generate", "-m", tiny, *GO, "-N", "1", "--echo", "--chat", "hi").out
    assert raw[:-1] == b"hi"
    assert chat.startswith(b"System: Be kind.\n\nUser: hi")


def test_the_room_of_states_can_be_set(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKV_STATE_ROOM", "123m")
    assert b"room for 123.0 MB" in cli("state", "gc").out
    monkeypatch.setenv("RWKV_STATE_ROOM", "much")
    assert cli("state", "gc").code == 2


def test_the_kernels_of_a_card_are_set_like_everything_else(
    cli: Cli, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {"device": "cuda:1"}
    assert collect(card).placement().kernels is None
    Path(env["RWKV_CONFIG"]).write_text('kernels = "torch"')
    assert collect(card).placement().kernels == "torch"
    monkeypatch.setenv("RWKV_KERNELS", "cuda")
    assert collect(card).placement().kernels == "cuda"
    assert collect({**card, "kernels": "auto"}).placement().kernels is None


def test_a_strategy_hides_device_and_precision_of_what_comes_later(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(env["RWKV_CONFIG"])
    file.write_text('dtype = "int8"\n')
    assert collect({"strategy": "cpu fp32"}).placement() == Strategy("cpu", "fp32")
    assert collect({"strategy": "auto"}).placement().auto
    assert collect({"dtype": "bf16"}).placement() == Strategy("cpu", "bf16")
    monkeypatch.setenv("RWKV_STRATEGY", "cpu fp32 *2 -> cpu bf16")
    assert len(collect({}).placement().segments) == 2
    assert collect({"dtype": "int4"}).placement() == Strategy("cpu", "int4")


@pytest.mark.parametrize("command", ["generate", "bench"])
@pytest.mark.parametrize("flag", [("--dtype", "int8"), ("--device", "cpu")])
def test_a_strategy_and_what_contradicts_it_are_refused_together(
    cli: Cli, tiny: Path, command: str, flag: tuple[str, str]
) -> None:
    result = cli(command, "-m", tiny, "--strategy", "cpu fp32", *flag)
    assert (result.code, result.out) == (2, b"")
    assert result.err.startswith("rwkv: --strategy says which ")
    assert f"so {flag[0]} contradicts it" in result.err


def test_a_config_file_is_not_made_to_contradict_itself(cli: Cli, env: dict[str, str]) -> None:
    assert cli("config", "set", "dtype", "int8").code == 0
    refused = cli("config", "set", "strategy", "cpu fp32")
    assert refused.code == 2
    assert f"dtype in {env['RWKV_CONFIG']} contradicts it" in refused.err
    assert cli("config", "set", "strategy", "auto").code == 0
    assert cli("config", "unset", "dtype").code == 0
    assert cli("config", "set", "strategy", "cpu fp32").code == 0
