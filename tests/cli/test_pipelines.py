"""`rwkv generate` in shell scripts: loops, pipes, exit codes, and code cut out of answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cli.conftest import Cli
from cli.running import COMMAND, in_shell

GO = ("-q", "-t", "1", "--seed", "7")
CODE = "Run:\n\n  ```sh\n  ls\n  ```\n"  # with --echo, this is how the answer begins


def in_any_shell(shell: str, script: str, env: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Run a script in which "$@" is `rwkv generate` with a tiny model, on one thread."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    line = [shell, "-c", script, shell, *COMMAND, "generate", *GO]
    done = subprocess.run(line, env=env, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def lines(tiny: Path, env: dict[str, str], tmp_path: Path) -> Path:
    """A file of three lines, beside a setting that names the tiny model."""
    env["RWKV_MODEL"] = str(tiny)
    path = tmp_path / "lines"
    path.write_text("one\ntwo\nthree\n")
    return path


# Loops


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_loop_that_reads_a_file_keeps_its_lines_with_no_stdin(
    shell: str, env: dict[str, str], lines: Path
) -> None:
    script = f'while read -r l; do "$@" --no-stdin --echo -N 1 "$l"; echo; done <{lines}'
    code, out, err = in_any_shell(shell, script, env)
    assert (code, err) == (0, b"")
    assert [line[:-1] for line in out.splitlines()] == [b"one", b"two", b"three"]


def test_without_it_what_the_loop_has_left_is_the_document(
    env: dict[str, str], lines: Path
) -> None:
    script = f'while read -r l; do "$@" --json -N 1 "$l"; done <{lines}'
    code, out, _ = in_any_shell("bash", script, env)
    assert code == 0
    assert [json.loads(line)["mode"] for line in out.splitlines()] == ["chat"]


def test_a_failure_ends_a_loop_that_stops_at_failures(env: dict[str, str], lines: Path) -> None:
    script = f'set -e; for f in {lines} missing {lines}; do "$@" --echo -N 1 -f "$f"; done'
    code, out, err = in_any_shell("bash", script, env)
    assert code == 3
    assert out[:-1] == lines.read_bytes()
    assert err == b"rwkv: no such file: missing\n"


def test_a_failure_is_seen_through_a_pipe(env: dict[str, str], lines: Path) -> None:
    script = 'set -euo pipefail; text=$("$@" -f missing 2>&- | cat); echo never'
    assert in_any_shell("bash", script, env) == (3, b"", b"")


def test_each_word_from_xargs_is_a_prompt_of_its_own(env: dict[str, str], lines: Path) -> None:
    script = 'printf \'a  b\\0c"d\\0\' | xargs -0 -n 1 "$@" --echo -N 1'
    code, out, err = in_any_shell("bash", script, env)
    assert (code, err) == (0, b"")
    assert (out[:4], out[5:8]) == (b"a  b", b'c"d')


def test_stdin_is_asked_for_and_left_alone_at_once_in_no_command(cli: Cli) -> None:
    outcome = cli("generate", "--no-stdin", "-f", "-", "hi")
    assert (outcome.code, outcome.out) == (2, b"")
    assert "--no-stdin" in outcome.err


def test_what_is_in_stdin_is_not_read_when_it_is_left_alone(cli: Cli, tiny: Path) -> None:
    line = ("generate", "-m", tiny, *GO, "-N", "5", "hi")
    assert cli(*line, "--no-stdin", stdin=b"a document").out == cli(*line).out
    assert cli("generate", "--no-stdin", stdin=b"a document").code == 2


def test_null_is_a_flag_of_rows(cli: Cli) -> None:
    outcome = cli("generate", "--null", "hi")
    assert (outcome.code, outcome.out) == (2, b"")
    assert "-i" in outcome.err


# Code


def test_only_the_code_is_given(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    line = ("generate", "-m", tiny, *GO, "-N", "5", "--echo", CODE)
    assert cli(*line, "-x").out == b"ls\n"
    assert cli(*line, "-x", "-o", tmp_path / "run.sh").out == b""
    assert (tmp_path / "run.sh").read_bytes() == b"ls\n"


def test_an_answer_without_code_is_given_whole(cli: Cli, tiny: Path) -> None:
    line = ("generate", "-m", tiny, "-t", "1", "--seed", "7", "-N", "20", "hi")
    whole, extracted = cli(*line), cli(*line, "--extract")
    assert (extracted.code, extracted.out) == (0, whole.out)
    assert "no fenced code" in extracted.err
    assert cli(*line, "-x", "-q").err == ""


def test_json_has_the_answer_and_its_code(cli: Cli, tiny: Path) -> None:
    line = ("generate", "-m", tiny, *GO, "-N", "5", "--json")
    found = json.loads(cli(*line, "-x", "--echo", CODE).out)
    assert found["text"].startswith(CODE)
    assert found["code"] == "ls\n"
    assert json.loads(cli(*line, "-x", "hi").out)["code"] is None
    assert "code" not in json.loads(cli(*line, "hi").out)


def test_code_on_a_full_disk_is_an_error(tiny: Path, env: dict[str, str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    script = f"\"$@\" generate -q -x --echo -N 1 -m {tiny} '{CODE}' >/dev/full </dev/null"
    result = in_shell(script, env)
    assert result.returncode == 5
    assert b"no space" in result.stderr
