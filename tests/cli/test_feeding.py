"""What is fed is read whole, line by line, and what was read is kept, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
from cli.conftest import Cli
from cli.running import COMMAND
from hypothesis import given
from hypothesis import strategies as st

import rwkv_cli
from rwkv_cli.cli import feeding
from rwkv_cli.cli.feeding import Feeding, _lines
from rwkv_cli.cli.prompt import Prompt
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State


@pytest.fixture
def model(tiny: Path) -> Model:
    return rwkv_cli.load(tiny)


def _file(env: dict[str, str], name: str) -> Path:
    return Path(env["RWKV_DATA_DIR"]) / "states" / f"{name}.rwkvstate"


def _feeding(model: Model, folder: Path) -> Feeding:
    return Feeding(model, model.zero_state(), folder / "x.rwkvstate", every=99, quiet=True)


def test_what_is_fed_is_there_soon_and_after_an_interrupt(
    env: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [*COMMAND, "state", "feed", "ops", "-m", str(tiny), "--every", "0"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(b"first line\nhalf")
    process.stdin.flush()
    model = rwkv_cli.load(tiny)
    end = time.monotonic() + 60
    while not _file(env, "ops").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert bytes(model.load_state(_file(env, "ops")).tokens) == b"first line\n"
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert bytes(model.load_state(_file(env, "ops")).tokens) == b"first line\nhalf"


def test_two_who_feed_one_state_keep_both(cli: Cli, env: dict[str, str], tiny: Path) -> None:
    cli("state", "make", "x", "-m", tiny, stdin=b"a\n")
    model = rwkv_cli.load(tiny)
    path = _file(env, "x")
    one = Feeding(model, model.load_state(path), path, every=9, quiet=True)
    cli("state", "feed", "x", "-m", tiny, stdin=b"theirs\n")
    one.run(Prompt(words="mine\n"))
    assert one.path.name == "x-2.rwkvstate"
    assert bytes(model.load_state(path).tokens) == b"a\ntheirs\n"
    assert bytes(model.load_state(one.path).tokens) == b"a\nmine\n"


@pytest.mark.parametrize("first", [b"ab", b"one\nhalf a li"])
def test_a_line_that_comes_slowly_is_read_whole(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    source, target = os.pipe()
    monkeypatch.setattr(feeding, "STDIN", source)
    monkeypatch.setattr(feeding, "_IDLE", 0.01)
    Timer(0.3, lambda: (os.write(target, b"ne\n"), os.close(target))).start()
    fed: list[bytes] = []
    encode = model.tokenizer.encode
    monkeypatch.setattr(model.tokenizer, "encode", lambda text: fed.append(text) or encode(text))
    _feeding(model, tmp_path).run(Prompt(piped=first))
    os.close(source)
    assert fed == (first + b"ne\n").splitlines(keepends=True)


@given(st.text("ab \n\u00e9\u4e16\U0001f600"), st.integers(0, 9))
def test_only_an_endless_line_is_cut_and_never_within_a_character(text: str, least: int) -> None:
    whole = text.encode()
    held = bytearray(whole)
    given = b"".join(_lines(held, least))
    assert given + held == whole
    given.decode()
    if given and not given.endswith(b"\n"):
        assert least
        assert b"\n" not in whole
    if len(whole) >= 2 * least > 8:
        assert given


def test_reading_stops_soon_after_an_interrupt(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed, prefill = _feeding(model, tmp_path), model.engine.prefill

    def interrupted(tokens: Sequence[int], state: State) -> Any:
        fed.interrupt()
        return prefill(tokens, state)

    monkeypatch.setattr(model.engine, "prefill", interrupted)
    fed.run(Prompt(words="word " * 10_000))
    assert model.load_state(fed.path).position == fed.state.position == model.engine.chunk


def test_what_was_broken_off_is_not_kept(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed, prefill = _feeding(model, tmp_path), model.engine.prefill

    def broken(tokens: Sequence[int], state: State) -> Any:
        if not state.position:
            return prefill(tokens, state)
        for array in state.arrays.values():
            array += 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "prefill", broken)
        with pytest.raises(KeyboardInterrupt):
            fed.run(Prompt(words="word " * 10_000))
    kept = model.load_state(fed.path)
    _, wanted = model.prefill(list(kept.tokens))
    assert kept.position == model.engine.chunk
    for name, array in wanted.arrays.items():
        assert np.array_equal(kept.arrays[name], array)
