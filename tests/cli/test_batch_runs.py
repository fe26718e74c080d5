"""Batches as processes: killed, stopped, fed by pipes, poisoned, watched on a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from cli.conftest import Cli
from cli.rowsfiles import PROMPTS, read
from cli.running import COMMAND, rwkv, start
from cli.terminal import Terminal


def test_a_stream_that_has_grown_is_gone_on_with_and_another_one_is_refused(
    cli: Cli, flags: list[object], tmp_path: Path
) -> None:
    out, lines = tmp_path / "out", [f"line {i}\n".encode() for i in range(9)]
    for count in (5, 9):
        assert cli(*flags, "-i", "-", "-o", out, stdin=b"".join(lines[:count]) + b"\n").code == 0
        assert [row["prompt"] for row in read(out)] == [f"line {i}" for i in range(count)]
    other = cli(*flags, "-i", "-", "-o", out, stdin=b"".join(reversed(lines)))
    assert (other.code, "another stream" in other.err) == (2, True)
    assert len(read(out)) == 9


# What a line holds; whether its row has an answer.
POISON: list[tuple[bytes, bool]] = [
    (b'\xef\xbb\xbf{"prompt":"hello"}\r', True),
    (b'{"prompt":"\xff"}', False),
    (b'{"prompt":"a\0b"}', False),
    (b'{"prompt":"a\\u0000b"}', True),
    (b'{"prompt":"\\u0000"}', False),
    (b'{"prompt":"\\ud800"}', False),
    (b'{"prompt":"a","prompt":"b"}', False),
    (b'{"prompt":"a","x":NaN}', False),
    (b'{"prompt":"a","x":' + b"7" * 5000 + b"}", False),
    (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", False),
    (b'{"prompt":"' + b"x" * (20 << 20) + b'"}', False),
    (b'{"prompt":""}', False),
    (b'{"prompt":"hi\\n\\nUser: x\\n\\nAssistant: y\\u2028z"}', True),
    (b"\0\0\0", False),
    (b'{"prompt":"the last"}', True),
]


def _run_measured(arguments: Iterable[object], env: dict[str, str]) -> tuple[int, int]:
    """Run the command: the exit code, and the most memory that was seen, in KiB; 0 where nothing
    tells.
    """
    process, peak = start([*map(str, arguments)], env, stdout=DEVNULL, stderr=DEVNULL), 0
    while process.poll() is None:
        with suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            peak = max([peak, *map(int, re.findall(r"VmHWM:\s+(\d+) kB", status))])
        time.sleep(0.005)
    return process.returncode, peak


def test_a_poisoned_file_gives_one_row_for_each_row_in_constant_memory(
    env: dict[str, str], flags: list[object], tmp_path: Path
) -> None:
    path, clean = tmp_path / "poison.jsonl", tmp_path / "clean.jsonl"
    path.write_bytes(b"\n \n".join(line for line, _ in POISON))  # blank lines, no end
    clean.write_bytes(b'{"prompt":"hello"}\n' * len(POISON))
    codes, peaks = {}, {}
    for given in (clean, path):
        out = f"{given}.out"
        codes[given], peaks[given] = _run_measured([*flags, "-i", given, "-o", out], env)
    assert list(codes.values()) == [0, 7]
    with path.open("rb") as pipe:
        piped = rwkv([*map(str, flags), "-i", "/dev/stdin"], env, stdin=pipe.fileno())
    made = [json.loads(line) for line in piped.stdout.splitlines()]
    assert piped.returncode == 7
    assert read(tmp_path / "poison.jsonl.out") == made
    assert [row["index"] for row in made] == list(range(len(POISON)))
    assert ["error" not in row for row in made] == [good for _, good in POISON]
    assert peaks[path] - peaks[clean] < 48 << 10, peaks  # a line may have 16 MiB


def _interrupted(env: dict[str, str], arguments: list[Any], number: signal.Signals) -> int:
    """Run until there are some more rows, then send a signal."""
    out = Path(arguments[arguments.index("-o") + 1])
    before = out.read_bytes().count(b"\n") if out.exists() else 0
    child = start([str(argument) for argument in arguments], env)
    until = time.monotonic() + 60
    while time.monotonic() < until and child.poll() is None:
        if out.exists() and out.read_bytes().count(b"\n") >= before + 3:
            break
        time.sleep(0.01)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    if number == signal.SIGINT and child.returncode == 130:
        assert b"the same command goes on" in err
    return child.returncode


def test_a_run_that_is_stopped_goes_on_and_ends_as_if_it_never_was(
    env: dict[str, str], given: Callable[..., Path], tmp_path: Path
) -> None:
    rows = given(*({"prompt": f"Once {i} upon"} for i in range(40)))
    flags = ["generate", "-m", "demo", "-N", 30, "--seed", 3, "-j", 2, "-i", rows]
    whole = tmp_path / "whole"
    assert rwkv([str(f) for f in [*flags, "-o", whole]], env).returncode == 0
    out, codes = tmp_path / "out", []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        codes.append(_interrupted(env, [*flags, "-o", out], number))
    assert codes == [130, 143, -9]
    assert rwkv([str(f) for f in [*flags, "-o", out]], env).returncode == 0
    assert out.read_bytes() == whole.read_bytes()


def test_a_reader_that_goes_away_ends_a_run_quietly(
    env: dict[str, str], given: Callable[..., Path]
) -> None:
    rows = given(*PROMPTS)
    ours, theirs = os.pipe()
    child = start(["generate", "-m", "demo", "-q", "-N", "3", "-i", rows], env, stdout=theirs)
    os.close(theirs)
    os.close(ours)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (141, b"")


def test_a_stream_is_answered_row_by_row_and_gone_on_with(
    env: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = ["generate", "-m", "demo", "-q", "-N", "3", "--seed", "1", "-i", "-"]
    rows = "".join(json.dumps({"prompt": f"Once {i}"}) + "\n" for i in range(6)).encode()
    child = start(flags, env, stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(rows[: rows.index(b"\n") + 1])
    child.stdin.flush()
    first = child.stdout.readline()
    assert json.loads(first)["index"] == 0, "a row is answered before the next one comes"
    child.communicate(rows[rows.index(b"\n") + 1 :], timeout=60)
    half = rows[: len(rows) // 2]
    for stdin in (half[: half.rindex(b"\n") + 1], rows, rows):
        assert rwkv([*flags, "-o", str(out)], env, stdin).returncode in (0, 2)
    assert rwkv([*flags, "-o", str(out)], env, rows[9:]).returncode == 2


def test_on_a_terminal_rows_and_the_bar_do_not_share_a_line(
    given: Callable[..., Path], env: dict[str, str]
) -> None:
    rows = given(*({"prompt": f"Once {i}", "max_tokens": 40 * i} for i in range(1, 6)))
    with Terminal([*COMMAND, "generate", "-m", "demo", "-i", str(rows), "-j", "1"], env) as screen:
        assert screen.finish() == 0
        lines = screen.text().splitlines()
    assert sum(line.startswith('{"index":') for line in lines) == 5
    assert not [line for line in lines if "▏" in line]
