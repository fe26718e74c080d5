"""`rwkv generate -i`: rows in, rows out, whatever happens between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from cli.conftest import Cli
from cli.rowsfiles import PROMPTS, read


def test_each_row_is_what_its_seed_gives_a_single_run(
    cli: Cli, flags: list[object], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows, out = given(*PROMPTS, {"prompt": "x", "seed": 11, "temperature": 0.3}), tmp_path / "out"
    assert cli(*flags, "-i", rows, "-o", out).code == 0
    made = read(out)
    assert [row["index"] for row in made] == list(range(18))
    assert made[17]["seed"] == 11
    for row in [*made[:4], made[17]]:
        own = ["--seed", row["seed"], "--temperature", row.get("temperature", 1.0), "--json"]
        single = json.loads(cli(*flags, *own, row["prompt"]).out)
        assert row["text"] == single["text"]
        assert row["finish_reason"] == single["finish_reason"]
        assert row["usage"]["prompt_tokens"] == single["usage"]["prompt_tokens"]


def test_rows_do_not_depend_on_how_many_run_at_once_or_on_threads(
    cli: Cli, flags: list[object], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows, seen = given(*PROMPTS), set()
    for jobs, threads in ((1, 1), (2, 2), (50, 2)):
        out = tmp_path / f"out-{jobs}"
        assert cli(*flags, "-i", rows, "-o", out, "-j", jobs, "-t", threads).code == 0
        seen.add(out.read_bytes())
    to_stdout = cli(*flags, "-i", rows, "-j", 3).out
    seen.add(to_stdout)
    assert len(seen) == 1
    unordered = cli(*flags, "-i", rows, "-j", 3, "--unordered").out
    assert sorted(unordered.splitlines()) == sorted(to_stdout.splitlines())


def test_one_row_out_for_each_row_in_and_exit_7_when_some_fail(
    cli: Cli, flags: list[object], tmp_path: Path
) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_bytes(
        b'\xef\xbb\xbf{"prompt":"a"}\r\n\n{"prompt":"\xff"}\nno json\n{"prompt":""}\n'
        b'{"prompt":"a","prompt":"b"}\n{"x":1}\n{"prompt":"z","temperature":-1}\n{"prompt":"z"}'
    )
    outcome = cli(*flags, "-i", rows, "-o", out)
    assert outcome.code == 7
    assert "6 rows failed" in outcome.err
    made = read(out)
    assert [row["index"] for row in made] == list(range(8))
    assert [("error" in row) for row in made] == [False, *[True] * 6, False]
    again = cli(*flags, "-i", rows, "-o", out)
    assert again.code == 7, "rows that failed stay failed"
    assert read(out) == made
    assert cli(*flags, "-i", rows, "-o", out, "--retry-errors").code == 7
    assert read(out) == made


def test_errors_may_have_a_file_of_their_own(
    cli: Cli, flags: list[object], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows, out, errors = given({"prompt": "a"}, {"no": 1}), tmp_path / "out", tmp_path / "errors"
    assert cli(*flags, "-i", rows, "-o", out, "--errors", errors).code == 7
    assert [row["index"] for row in read(out)] == [0]
    assert [row["error"]["code"] for row in read(errors)] == ["missing_field"]


def test_a_changed_run_is_refused_with_the_difference(
    cli: Cli, flags: list[object], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows, out = given(*PROMPTS), tmp_path / "out"
    cli(*flags, "-i", rows, "-o", out)
    kept = out.read_bytes()
    for changed, said in (
        (["--temperature", 0.5], "temperature"),
        (["--template", "T {prompt}"], "template"),
        (["--seed", 4], "seed"),
        (["-k", 2], "samples"),
    ):
        outcome = cli(*flags, *changed, "-i", rows, "-o", out)
        assert outcome.code == 2
        assert said in outcome.err
    given(*PROMPTS[:5])
    assert "input" in cli(*flags, "-i", rows, "-o", out).err
    assert out.read_bytes() == kept
    assert cli(*flags, "-i", rows, "-o", out, "--restart").code == 0
    assert len(read(out)) == 5


def test_a_template_makes_prompts_of_fields(
    cli: Cli, flags: list[object], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows = given({"text": "hello", "temperature": "warm"}, {"word": 1})
    outcome = cli(*flags, "-i", rows, "--template", "Say {{{text}}} {temperature}:")
    made = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.code == 7
    assert made[0]["usage"]["prompt_tokens"] == len("Say {hello} warm:")
    assert made[0]["input_text"] == "hello"
    assert "missing field 'text'" in made[1]["error"]["message"]
    (tmp_path / "form.txt").write_text("Say {{{text}}} {temperature}:\n", encoding="utf-8")
    same = cli(*flags, "-i", rows, "--template", f"@{tmp_path / 'form.txt'}")
    assert same.out == outcome.out


def test_requests_of_openai_are_answered_in_their_form(
    cli: Cli, flags: list[object], given: Callable[..., Path]
) -> None:
    def row(name: str, **body: object) -> dict[str, object]:
        url = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        return {"custom_id": name, "method": "POST", "url": url, "body": body}

    said = [{"role": "user", "content": "hi"}]
    rows = given(
        row("one", messages=said, max_tokens=5), row("two", prompt="ab", n=2, max_tokens=3)
    )
    outcome = cli(*flags, "-i", rows)
    one, two = (json.loads(line) for line in outcome.out.splitlines())
    assert one["custom_id"] == "one"
    assert one["response"]["body"]["choices"][0]["message"]["role"] == "assistant"
    assert one["response"]["body"]["usage"]["completion_tokens"] <= 5
    assert [choice["index"] for choice in two["response"]["body"]["choices"]] == [0, 1]
    twice = given(row("one", prompt="a"), row("one", prompt="b"))
    refused = cli(*flags, "-i", twice)
    assert refused.code == 2
    assert "one" in refused.err
    assert refused.out == b""


def test_samples_come_from_one_reading_and_are_those_of_their_streams(
    cli: Cli, flags: list[object], given: Callable[..., Path]
) -> None:
    rows = given({"prompt": "abc", "seed": 5})
    [made] = [json.loads(line) for line in cli(*flags, "-i", rows, "-k", 3).out.splitlines()]
    texts = [sample["text"] for sample in made["samples"]]
    assert len(set(texts)) > 1
    single = json.loads(cli(*flags, "--seed", 5, "-k", 3, "--json", "abc").out)
    assert [sample["text"] for sample in single["samples"]] == texts
    [first] = [json.loads(line) for line in cli(*flags, "-i", rows).out.splitlines()]
    assert first["text"] == texts[0]
    plain = cli(*flags, "--seed", 5, "-k", 3, "--null", "abc")
    ends = [text.decode("utf-8", "replace") for text in plain.out.split(b"\0")]
    assert ends[0] == texts[0]


def test_log_probabilities_are_told_with_each_token(
    cli: Cli, flags: list[object], given: Callable[..., Path]
) -> None:
    rows = given({"prompt": "abc", "seed": 5})
    [made] = [
        json.loads(line) for line in cli(*flags, "-i", rows, "--logprobs", 2).out.splitlines()
    ]
    single = json.loads(cli(*flags, "--seed", 5, "--logprobs", 2, "--json", "abc").out)
    assert made["logprobs"] == single["logprobs"]
    assert len(made["logprobs"]) == made["usage"]["completion_tokens"]
    assert all(len(score["top"]) == 2 for score in made["logprobs"])


def test_plain_lines_tables_and_nul_ended_prompts_are_rows(
    cli: Cli, flags: list[object], tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\n", encoding="utf-8")
    (tmp_path / "t.csv").write_text('name,prompt\nx,one\n"y, z","two"\n', encoding="utf-8")
    lines = cli(*flags, "-i", tmp_path / "p.txt").out.splitlines()
    table = cli(*flags, "-i", tmp_path / "t.csv").out.splitlines()
    ended = cli(*flags, "-i", "-", "--null", stdin=b"one\0two\0").out.splitlines()
    texts = [[json.loads(line)["text"] for line in rows] for rows in (lines, table, ended)]
    assert texts[0] == texts[1] == texts[2]
    assert json.loads(table[1])["name"] == "y, z"


def test_skip_and_limit_choose_rows_whose_answers_stay_the_same(
    cli: Cli, flags: list[object], given: Callable[..., Path]
) -> None:
    rows = given(*PROMPTS)
    whole = cli(*flags, "-i", rows).out.splitlines()
    assert cli(*flags, "-i", rows, "--skip", 3, "--limit", 4).out.splitlines() == whole[3:7]


def test_a_part_that_was_tried_first_is_kept_when_all_rows_are_asked(
    cli: Cli, flags: list[object], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows, part, whole = given(*PROMPTS), tmp_path / "part", tmp_path / "whole"
    for more in (["--skip", 3, "--limit", 4], ["--limit", 9], []):
        assert cli(*flags, "-i", rows, "-o", part, *more).code == 0
    assert cli(*flags, "-i", rows, "-o", whole).code == 0
    assert part.read_bytes() == whole.read_bytes()


def test_a_file_that_was_left_unordered_is_put_in_order_when_that_is_asked_for(
    cli: Cli, flags: list[object], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows, out, whole = given(*PROMPTS), tmp_path / "out", tmp_path / "whole"
    assert cli(*flags, "-i", rows, "-o", whole).code == 0
    assert cli(*flags, "-i", rows, "-o", out, "--unordered", "-j", 3).code == 0
    assert sorted(read(out), key=lambda row: int(row["index"])) == read(whole)
    assert cli(*flags, "-i", rows, "-o", out).code == 0
    assert out.read_bytes() == whole.read_bytes()


def test_a_dry_run_shows_prompts_and_writes_nothing(
    cli: Cli, flags: list[object], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows, out = given({"text": "hello"}, {"nothing": 1}, {"text": "more"}), tmp_path / "out"
    outcome = cli(*flags, "-i", rows, "-o", out, "--template", "Say {text}", "--dry-run")
    assert outcome.code == 0
    assert b"Say hello" in outcome.out
    assert b"9 tokens" in outcome.out
    assert b"missing field" in outcome.out
    assert b"3 rows: " in outcome.out
    assert list(tmp_path.glob("out*")) == []


def test_what_makes_no_sense_with_rows_is_refused(
    cli: Cli, flags: list[object], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows = given(*PROMPTS)
    for more in (
        ["words"], ["--echo"], ["--json"], ["--save-state", "x"], ["-j", 0], ["--restart"],
        ["--format", "xml"], ["-k", 0], ["--logprobs", 1000], ["-o", rows], ["--template", "{"],
    ):  # fmt: skip
        assert cli(*flags, "-i", rows, *more).code == 2, more
    assert cli(*flags, "-j", 3, "hello").code == 2
    assert cli(*flags, "-i", tmp_path / "none").code == 3


def test_only_code_is_kept_when_it_is_asked_for(cli: Cli, given: Callable[..., Path]) -> None:
    rows = given({"prompt": "a"})
    assert cli("generate", "-m", "demo", "-q", "-x", "-N", 4, "-i", rows).code == 0


def test_the_first_failure_is_told_at_once_and_what_came_of_a_run_at_its_end(
    cli: Cli, flags: list[object], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows, out = given({"prompt": "a"}, {"text": "b", "prompt": 3}, {"no": 1}), tmp_path / "out"
    told = cli(*[flag for flag in flags if flag != "-q"], "-i", rows, "-o", out)
    assert told.code == 7
    assert "row 1 failed: " in told.err
    assert "row 2 failed" not in told.err
    assert "[3 rows, 2 failed · 1 token read, " in told.err
    assert cli(*flags, "-i", rows, "--limit", 1).err == ""


def test_a_dry_run_shows_the_rows_that_would_be_asked_and_none_that_are_made_up(
    cli: Cli, flags: list[object], given: Callable[..., Path]
) -> None:
    rows = given({"text": "first"}, {"text": "second"}, {"text": "third"})
    part = cli(*flags, "-i", rows, "--skip", 1, "--limit", 1, "--dry-run").out
    assert b"row 1: 6 tokens" in part
    assert b"first" not in part
    assert b"third" not in part
    assert b"1 row: " in part
    stream = cli(*flags, "-i", "-", "--dry-run", stdin=rows.read_bytes()).out
    assert [b"row 0: 5 tokens" in stream, b"third" in stream] == [True, True]


def test_a_dry_run_counts_what_prompts_share_once(
    cli: Cli, flags: list[object], given: Callable[..., Path]
) -> None:
    rows = given(*({"prompt": "The same beginning, then " + word} for word in ("one", "two")))
    shown = cli(*flags, "-i", rows, "--dry-run").out
    assert b"shared prefix: 25 tokens, to be read once\n" in shown


def test_the_two_meanings_of_a_template_are_told_apart(
    cli: Cli, flags: list[object], given: Callable[..., Path]
) -> None:
    rows = given({"text": "a"})
    name = cli(*flags, "-i", rows, "--template", "Translate this")
    assert (name.code, "fields in braces" in name.err) == (2, True)
    single = cli(*flags, "--template", "Translate: {text}", "hello")
    assert (single.code, "rows of -i" in single.err) == (2, True)
    words = cli(*flags, "-i", rows, "Translate", "this")
    assert (words.code, "'Translate this'" in words.err) == (2, True)
