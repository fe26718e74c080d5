"""Laws about processes: streams, signals, terminals and hostile environments."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cli.conftest import Cli
from cli.running import COMMAND, environment, in_shell, rwkv, start
from cli.terminal import Terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these are laws of POSIX")

CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
ENDLESS = ("-N", "1m", "--ban", "0", "--seed", "3")


def no_traceback(err: bytes) -> bool:
    return b"Traceback" not in err and b"bug in rwkv" not in err


# stdin


def test_a_long_text_is_read_in_bounded_memory_with_progress(
    tiny: Path, env: dict[str, str]
) -> None:
    watcher, terminal = pty.openpty()
    source = subprocess.Popen("yes | head -c 5000000", shell=True, stdout=subprocess.PIPE)
    process = start(["generate", "-m", tiny, "-N", "5"], env, stdin=source.stdout, stderr=terminal)
    os.close(terminal)
    shown = bytearray()
    peaks = [0]

    def watch() -> None:
        while True:
            try:
                shown.extend(os.read(watcher, 1 << 16))
            except OSError:
                return

    def weigh() -> None:
        # Not the child's rusage: Linux counts into it what its parent had at the start.
        while process.returncode is None:
            with suppress(FileNotFoundError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                peaks.extend(int(kib) for kib in re.findall(r"VmHWM:\s+(\d+) kB", status))
            time.sleep(0.05)

    threads = [threading.Thread(target=watch), threading.Thread(target=weigh)]
    for thread in threads:
        thread.start()
    assert process.stdout is not None
    assert source.stdout is not None
    answer = process.stdout.read()
    process.wait()
    for thread in threads:
        thread.join()
    process.stdout.close()
    source.stdout.close()
    source.wait()
    os.close(watcher)
    assert process.returncode == 0
    assert len(answer) == 5
    assert 0 < max(peaks) < 450_000 or not Path("/proc/self").exists()  # KiB; most is torch's
    assert b"reading the prompt" in shown


def test_words_are_continued_as_they_are_when_stdin_is_closed(
    tiny: Path, env: dict[str, str]
) -> None:
    result = in_shell(f'"$@" generate -m {tiny} -N 1 -v --echo hi <&-', env)
    assert result.returncode == 0
    assert result.stdout[:-1] == b"hi"
    assert b"mode raw" in result.stderr


def test_a_closed_stdin_is_no_prompt(env: dict[str, str]) -> None:
    result = in_shell('"$@" generate <&-', env)
    assert (result.returncode, result.stdout) == (2, b"")
    assert no_traceback(result.stderr)


def test_bytes_that_are_no_text_are_kept(tiny: Path, env: dict[str, str]) -> None:
    arguments = ["generate", "-m", tiny, "-N", "1", "--raw", "--echo", b"caf\xe9 \xff"]
    result = rwkv(arguments, env, stdin=b"\x80\xc3")
    assert result.returncode == 0
    assert result.stdout[:-1] == b"\x80\xc3caf\xe9 \xff"


# stdout


def test_a_reader_that_leaves_ends_the_program_silently(tiny: Path, env: dict[str, str]) -> None:
    endless = " ".join(ENDLESS)
    script = f'"$@" generate -q -m {tiny} {endless} hi | head -c 1; exit ${{PIPESTATUS[0]}}'
    result = in_shell(script, env)
    assert (result.returncode, result.stderr) == (141, b"")
    assert len(result.stdout) == 1


@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", "generate --help", "generate --raw --help", "models", "generate hi",
     "info demo", "completion bash", "chat hi"],
)  # fmt: skip
@pytest.mark.parametrize(("stream", "said"), [("&-", b"closed"), ("/dev/full", b"no space")])
def test_an_output_that_takes_nothing_is_an_error(
    env: dict[str, str], arguments: str, stream: str, said: bytes
) -> None:
    if stream == "/dev/full" and not Path(stream).exists():
        pytest.skip("there is no /dev/full here")
    result = in_shell(f'"$@" {arguments} >{stream} </dev/null', env)
    assert result.returncode == 5
    assert said in result.stderr
    assert no_traceback(result.stderr)


def test_nothing_is_written_into_a_file_that_took_the_place_of_a_closed_stream(
    tiny: Path, env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "out"
    script = f'"$@" generate -v -m {tiny} -N 3 hi -o {file} <&- >&- 2>&-'
    assert in_shell(script, env).returncode == 0
    assert len(file.read_bytes()) == 3


def test_every_stream_may_be_closed(env: dict[str, str]) -> None:
    assert in_shell('"$@" generate hi <&- >&- 2>&-', env).returncode == 5


def test_a_pipe_that_does_not_block_gets_every_byte(tiny: Path, env: dict[str, str]) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    text = "All work and no play. " * 6000  # more than a pipe holds
    process = start(
        ["generate", "-q", "-m", tiny, "-N", "1", "--echo", "-f", "-"], env,
        stdin=subprocess.PIPE, stdout=writer,
    )  # fmt: skip
    os.close(writer)
    assert process.stdin is not None
    assert process.stderr is not None
    feed = process.stdin
    feeder = threading.Thread(target=lambda: (feed.write(text.encode()), feed.close()))
    feeder.start()
    time.sleep(1)
    with open(reader, "rb") as pipe:
        got = pipe.read()
    feeder.join()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), err) == (0, b"")
    assert got[:-1] == text.encode()


# Terminals


def shown_on_a_terminal(env: dict[str, str], flags: list[str]) -> bytes:
    """Run the command with stdout alone on a terminal."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        with Terminal([*COMMAND, *flags], env, stderr=nothing) as terminal:
            assert terminal.finish() == 0
            return bytes(terminal.output)
    finally:
        os.close(nothing)


def test_on_a_terminal_no_control_character_of_a_model_is_obeyed(
    tiny: Path, env: dict[str, str], cli: Cli
) -> None:
    hot = ["-N", "600", "--temperature", "10", "--top-p", "1", "--seed", "1", "--ban", "0"]
    flags = ["generate", "-m", str(tiny), *hot, "x"]
    raw = cli(*flags).out
    assert b"\x1b" in raw
    assert b"\x07" in raw
    shown = shown_on_a_terminal(env, flags)
    assert not CONTROL.search(shown)
    assert "␛" in shown.decode()


def test_on_a_terminal_the_answer_ends_with_a_line_end(tiny: Path, env: dict[str, str]) -> None:
    flags = ["generate", "-m", str(tiny), "-N", "7", "--temperature", "0", "x"]
    assert shown_on_a_terminal(env, flags).endswith(b"\r\n")


def test_on_a_terminal_the_text_is_whole_and_so_is_the_screen(
    tiny: Path, env: dict[str, str]
) -> None:
    flags = ["generate", "-m", str(tiny), "-N", "7", "--temperature", "0", "Once upon\x1b a time"]
    with Terminal([*COMMAND, *flags], env) as terminal:
        assert terminal.finish() == 0
        assert "\nOnce upon␛ a time" in "\n" + terminal.text()
        assert not CONTROL.search(re.sub(rb"\x1b\[[0-9;]*[mK]", b"", terminal.output))


# Signals


def running(tiny: Path, env: dict[str, str], *flags: str | Path) -> subprocess.Popen[bytes]:
    """Start an answer that never ends, and wait for its first byte."""
    process = start(["generate", "-m", tiny, *ENDLESS, "hi", *flags], env, bufsize=0)
    assert process.stdout is not None
    assert process.stdout.read(1)
    return process


def test_an_interrupt_keeps_what_there_is(tiny: Path, env: dict[str, str], cli: Cli) -> None:
    process = running(tiny, env)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert no_traceback(err)
    assert b"interrupted" in err
    whole = cli("generate", "-m", tiny, "--ban", "0", "--seed", "3", "-N", len(out) + 1, "hi").out
    assert whole[1:] == out


def test_a_request_to_end_saves_the_state(
    tiny: Path, env: dict[str, str], tmp_path: Path, cli: Cli
) -> None:
    state = tmp_path / "end.rwkvstate"
    process = running(tiny, env, "--save-state", state)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 143
    assert no_traceback(err)
    more = cli("generate", "-m", tiny, "--state", state, "-N", "5").out
    count = str(len(out) + 6)
    whole = cli("generate", "-m", tiny, "--ban", "0", "--seed", "3", "-N", count, "hi").out
    assert out + more == whole[1:]


def test_two_interrupts_end_it_at_once(tiny: Path, env: dict[str, str]) -> None:
    process = running(tiny, env)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert no_traceback(err)


# Environments


def test_utf8_needs_no_locale(tiny: Path, env: dict[str, str]) -> None:
    plain = {
        **env, "LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
    }  # fmt: skip
    result = rwkv(["generate", "-q", "-m", tiny, "-N", "1", "--echo", "Grüße, 世界"], plain)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout[:-1] == "Grüße, 世界".encode()
    for arguments in (["--help"], ["generate", "--help"], ["nöthing"]):
        assert no_traceback(rwkv(arguments, plain).stderr)


def test_an_empty_environment_is_enough(tiny: Path) -> None:
    result = rwkv(
        ["generate", "-t", "1", "-m", tiny, "-N", "2", "hi"],
        {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ},
    )
    assert (result.returncode, len(result.stdout)) == (0, 2)


def test_a_home_that_takes_nothing_costs_only_what_would_be_kept(
    tiny: Path, tmp_path: Path
) -> None:
    env = environment(
        tmp_path, HOME="/dev/null", RWKV_DATA_DIR=None, RWKV_CONFIG=None, XDG_DATA_HOME=None
    )
    result = rwkv(["chat", "-m", tiny, "-N", "3", "hi"], env)
    assert result.returncode == 5
    assert result.stdout  # the answer came all the same
    assert b"--no-save" in result.stderr
    assert no_traceback(result.stderr)


def test_a_folder_that_was_deleted_is_named_as_the_reason(
    env: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    result = in_shell(f'cd {folder} && rmdir {folder} && "$@" generate hi', env)
    assert result.returncode == 5
    assert b"folder is gone" in result.stderr
