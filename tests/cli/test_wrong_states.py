"""State files that are not what they should be: one sentence that names the file, at once."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cli.conftest import Cli
from cli.running import rwkv
from oracle.wrongstates import NOWHERE, WRONG, Wrong

import rwkv_cli

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes with names are POSIX")

_SECONDS = 5
EVERY = {**WRONG, **NOWHERE}


@pytest.fixture(scope="session")
def sound(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A state with five tokens, and one that is penalized."""
    path = tmp_path_factory.mktemp("sound") / "a.rwkvstate"
    rwkv_cli.load(tiny).prefill(list(b"hello"))[1].save(path)
    return path.read_bytes()


def _complaint(code: int, out: bytes, err: str, path: Path, wrong: Wrong) -> None:
    """Nothing but one sentence, and perhaps what to do."""
    assert (code, out) == (wrong.code, b""), err
    sentence, *hint = err.splitlines()
    assert sentence.startswith("rwkv: ")
    assert str(path) in sentence
    assert wrong.says in sentence
    assert [line[:2] for line in hint] in ([], ["  "])


@pytest.mark.parametrize("name", EVERY)
def test_no_answer_comes_from_a_wrong_state(
    name: str, sound: bytes, tiny: Path, env: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "a.rwkvstate"
    EVERY[name].make(path, sound)
    began = time.monotonic()
    result = rwkv(
        ["generate", "-m", tiny, "--state", path, "-q", "-N", "1", "more"], env, timeout=30
    )
    seconds = time.monotonic() - began
    _complaint(result.returncode, result.stdout, result.stderr.decode(), path, EVERY[name])
    assert seconds < _SECONDS


@pytest.mark.parametrize("name", EVERY)
def test_no_conversation_begins_with_a_wrong_state(
    name: str, sound: bytes, tiny: Path, cli: Cli, env: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "a.rwkvstate"
    EVERY[name].make(path, sound)
    result = cli("chat", "-m", tiny, "--state", path, "-q", "-N", "1", "more")
    _complaint(result.code, result.out, result.err, path, EVERY[name])
    assert not (Path(env["RWKV_DATA_DIR"]) / "chats").exists()


@pytest.mark.parametrize("name", EVERY)
def test_no_wrong_state_is_called_whole_or_taken_in(
    name: str, sound: bytes, tiny: Path, cli: Cli, env: dict[str, str], tmp_path: Path
) -> None:
    path, wrong = tmp_path / "a.rwkvstate", EVERY[name]
    wrong.make(path, sound)
    result = cli("state", "verify", path, "-q", "-m", tiny)
    _complaint(result.code, result.out, result.err, path, wrong)
    if wrong.alone == 0:
        assert cli("state", "verify", path).code == 0
        return
    wrong = replace(wrong, code=wrong.alone or wrong.code)
    for words in (["verify", path], ["import", path, "taken"], ["export", path, tmp_path / "b"]):
        result = cli("state", *words)
        _complaint(result.code, result.out, result.err, path, wrong)
    assert not list(tmp_path.glob("data/states/*"))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", EVERY)
def test_a_wrong_state_is_told_about_and_hides_no_other(
    name: str, sound: bytes, cli: Cli, env: dict[str, str]
) -> None:
    folder = Path(env["RWKV_DATA_DIR"]) / "states"
    folder.mkdir(parents=True)
    path, wrong = folder / "a.rwkvstate", EVERY[name]
    wrong.make(path, sound)
    (folder / "b.rwkvstate").write_bytes(sound)
    result = cli("state", "ls")
    assert result.code == 0
    assert b"b  " in result.out
    assert len(result.out.splitlines()) + len(result.err.splitlines()) == len(
        list(folder.iterdir())
    )
    for words in (["state", "show", "a"], ["info", path]):
        result = cli(*words)
        assert "bug" not in result.err
        assert (result.code == 0) == (result.err == "")


# Inside a conversation, where a state is only there to save time

ASK = ("-q", "-N", "8", "--temperature", "0", "--presence", "0", "--frequency", "0", "--ban", "0")


@pytest.fixture
def talk(cli: Cli, tiny: Path, env: dict[str, str]) -> Path:
    """The last state of a conversation of two turns."""
    assert cli("chat", "-m", tiny, *ASK, "hi").code == 0
    assert cli("chat", "-c", *ASK, "and now?").code == 0
    chats = Path(env["RWKV_DATA_DIR"]) / "chats"
    return sorted(chats.glob("*/*.end.rwkvstate"))[-1]


@pytest.mark.parametrize("name", WRONG)
def test_a_conversation_goes_on_without_a_wrong_state(
    name: str, talk: Path, cli: Cli, sound: bytes
) -> None:
    expected = cli("chat", "-c", "--no-save", *ASK, "more")
    assert (expected.code, expected.err) == (0, "")
    kept = talk.read_bytes()
    talk.unlink()
    WRONG[name].make(talk, kept)
    result = cli("chat", "-c", *ASK, "more")
    assert (result.code, result.out) == (0, expected.out)
    (sentence,) = result.err.splitlines()
    assert str(talk) in sentence
    assert "made again from its tokens" in sentence
    assert not os.path.lexists(talk)
    (aside,) = (talk.parents[1] / "quarantine").iterdir()
    assert aside.name.endswith(talk.name)
    assert cli("chat", "-c", *ASK, "and more").err == ""


@pytest.mark.parametrize("before", [b"", b"Something else was said first. "])
def test_a_conversation_takes_no_state_of_another_text(
    before: bytes, talk: Path, cli: Cli, tiny: Path
) -> None:
    expected = cli("chat", "-c", "--no-save", *ASK, "more").out
    model = rwkv_cli.load(tiny)
    tokens = list(before) + list(model.load_state(talk).tokens)[not before :]
    model.prefill(tokens)[1].save(talk)
    result = cli("chat", "-c", *ASK, "more")
    assert (result.code, result.out) == (0, expected)
    (sentence,) = result.err.splitlines()
    assert f"{talk}: is the state of another text" in sentence


@pytest.mark.parametrize("name", NOWHERE)
def test_a_conversation_goes_on_without_a_state(name: str, talk: Path, cli: Cli) -> None:
    expected = cli("chat", "-c", "--no-save", *ASK, "more").out
    talk.unlink()
    NOWHERE[name].make(talk, b"")
    result = cli("chat", "-c", *ASK, "more")
    assert (result.code, result.out, result.err) == (0, expected, "")


@pytest.mark.parametrize("name", ["another checksum", "a link to a device without end", "no file"])
def test_a_state_that_a_conversation_began_from_is_missed(
    name: str, sound: bytes, tiny: Path, cli: Cli, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a.rwkvstate").write_bytes(sound)
    assert cli("chat", "-m", tiny, "--state", tmp_path / "a.rwkvstate", *ASK, "hi").code == 0
    (base,) = (Path(env["RWKV_DATA_DIR"]) / "chats").glob("*/base.rwkvstate")
    base.unlink()
    EVERY[name].make(base, sound)
    result = cli("chat", "-c", *ASK, "more")
    _complaint(result.code, result.out, result.err, base, EVERY[name])


def test_a_state_that_may_not_be_read_is_named_and_costs_no_turn(
    talk: Path, cli: Cli, tiny: Path
) -> None:
    talk.chmod(0)
    if os.access(talk, os.R_OK):
        pytest.skip("this user may read everything")
    unreadable = Wrong(5, "permission denied", lambda path, sound: None)
    result = cli("generate", "-m", tiny, "--state", talk, "-q", "-N", "1", "more")
    _complaint(result.code, result.out, result.err, talk, unreadable)
    result = cli("chat", "-c", *ASK, "more")
    assert result.code == 0
    assert "made again from its tokens" in result.err
    assert talk.exists()
