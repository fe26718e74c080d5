"""`rwkv config`: what is set, where from, and a file that keeps all that it does not change."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_cli.cli.configfile import parsed
from rwkv_cli.cli.tomledit import with_setting, without_setting

FUZZ = int(os.environ.get("CONFIG_EXAMPLES", "60"))
FILE = '''# mine
model = "1.5b"   # the good one

  temperature=0.8
"top_p" = 0.5 # quoted
system = """
Be kind. # no comment
temperature = 7
"""
# the end
'''


@pytest.fixture
def file(env: dict[str, str]) -> Path:
    return Path(env["RWKV_CONFIG"])


# Showing


def test_every_setting_is_shown_with_its_origin(
    cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("temperature = 0.5\ntop_p = 0.25\n")
    monkeypatch.setenv("RWKV_TOP_P", "0.75")
    told = json.loads(cli("config", "show", "--json").out)
    assert told["temperature"] == {"value": 0.5, "origin": str(file)}
    assert told["top_p"] == {"value": 0.75, "origin": "RWKV_TOP_P"}
    assert told["penalty_decay"]["origin"] == "preset demo"
    assert told["threads"] == {"value": None, "origin": "built-in"}
    shown = cli("config", "show", "--origin").out.decode()
    assert f"temperature    0.5    {file}" in shown
    assert "RWKV_TOP_P" in shown
    assert str(file) not in cli("config").out.decode()
    assert len(shown.splitlines()) == len(told)


def test_the_preset_is_that_of_the_format_that_is_set(cli: Cli, file: Path) -> None:
    file.write_text('template = "pile"\n')
    assert json.loads(cli("config", "show", "--json").out)["top_k"]["origin"] == "preset pile"


def test_a_value_is_given_as_it_is(cli: Cli, file: Path) -> None:
    assert cli("config", "get", "temperature").out == b"1.0\n"
    assert cli("config", "set", "--", "system", "two\nlines \x1b \"'\\ \x7f ü").code == 0
    assert cli("config", "get", "system").out == "two\nlines \x1b \"'\\ \x7f ü\n".encode()
    assert b"\x1b" not in cli("config").out
    assert cli("config", "get", "threads").code == 3
    assert cli("config", "path").out.decode().strip() == str(file)


def test_a_broken_file_is_an_error_that_names_it(cli: Cli, file: Path) -> None:
    file.write_text("temperature = \n")
    for words in (["show"], ["get", "seed"], ["set", "seed", "1"], ["unset", "temperature"]):
        result = cli("config", *words)
        assert (result.code, result.out) == (2, b"")
        assert "config.toml" in result.err
    assert file.read_text() == "temperature = \n"


# Setting


def test_all_that_is_not_changed_stays_byte_for_byte(cli: Cli, file: Path) -> None:
    for end in ("\n", "\r\n"):
        text = FILE.replace("\n", end)
        file.write_bytes(text.encode())
        assert cli("config", "set", "temperature", "1.25").code == 0
        text = text.replace("temperature=0.8", "temperature=1.25")
        assert file.read_bytes().decode() == text
        assert cli("config", "set", "top-p", ".5").code == 0
        assert file.read_bytes().decode() == text
        assert cli("config", "set", "system", "Be brief.").code == 0
        begin = text.index('"""')
        text = text[:begin] + '"Be brief."' + text[text.rindex('"""') + 3 :]
        assert file.read_bytes().decode() == text
        assert cli("config", "set", "seed", "4k").code == 0
        text += f"seed = 4000{end}"
        assert file.read_bytes().decode() == text
        assert cli("config", "unset", "model").code == 0
        assert file.read_bytes().decode() == text.replace(
            f'model = "1.5b"   # the good one{end}', ""
        )


def test_a_file_and_its_folder_are_made(cli: Cli, env: dict[str, str], tmp_path: Path) -> None:
    os.environ["RWKV_CONFIG"] = str(tmp_path / "a" / "b" / "config.toml")
    assert cli("config", "set", "threads", "2").code == 0
    assert (tmp_path / "a" / "b" / "config.toml").read_text() == "threads = 2\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", "warm"), ("temperature", "-1"), ("temperature", "nan"), ("threads", "0"),
     ("threads", "1.5"), ("max-tokens", "0"), ("template", "x"), ("device", "x"), ("dtype", "x"),
     ("temprature", "1"), ("", "1"), ("kernels", "x"), ("seed", "-1"), ("state_room", ""),
     ("system", "\udcff"), ("top_p", "1" * 5000)],
)  # fmt: skip
def test_what_no_command_would_take_is_not_written(
    cli: Cli, file: Path, key: str, value: str
) -> None:
    result = cli("config", "set", "--", key, value)
    assert (result.code, result.out) == (2, b"")
    assert not file.exists()


def test_settings_that_contradict_each_other_are_not_written(cli: Cli, file: Path) -> None:
    both = 'kernels = "cuda"\ndevice = "cuda"\n'
    file.write_text(both)
    assert cli("config", "set", "device", "cpu").code == 2
    assert file.read_text() == both


def test_a_file_that_makes_no_sense_can_be_mended(cli: Cli, file: Path) -> None:
    file.write_text("temprature = 1\nthreads = 'many'\n")
    assert cli("config", "set", "threads", "2").code == 0
    assert cli("config", "unset", "temprature").code == 0
    assert file.read_text() == "threads = 2\n"
    assert cli("config", "unset", "seed").code == 3
    assert cli("config", "unset", "sead").code == 2


@pytest.mark.parametrize(
    "text", ["[table]\nseed = 1\n", "seed.x = 1\n", "a = [\n 1,\n seed = 2]\n", "seed = {a = 1}\n"]
)
def test_a_form_that_is_not_ours_is_left_alone_or_stays_toml(
    cli: Cli, file: Path, text: str
) -> None:
    file.write_text(text)
    if cli("config", "set", "top_k", "3").code == 0:
        assert parsed(file.read_text(), file)["top_k"] == 3
        assert text in file.read_text().replace("top_k = 3\n", "")
    else:
        assert file.read_text() == text


def test_what_comes_first_is_said(cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKV_SEED", "1")
    assert "RWKV_SEED says 1, and comes first" in cli("config", "set", "seed", "2").err
    assert "seed = 2 in" in cli("config", "set", "seed", "2").err
    assert cli("config", "set", "seed", "2", "-q").err == ""


def test_links_and_modes_stay(cli: Cli, file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("seed = 1\n")
    real.chmod(0o600)
    file.symlink_to(real)
    assert cli("config", "set", "seed", "2").code == 0
    assert file.is_symlink()
    assert real.read_text() == "seed = 2\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_a_process_that_is_killed_leaves_a_whole_file(env: dict[str, str], file: Path) -> None:
    code = (
        "import itertools; from rwkv_cli.cli.app import run\n"
        "for n in itertools.count(): run(['config', 'set', '-q', 'seed', str(n % 999)])"
    )
    file.write_text(FILE)
    for number in range(4):
        process = subprocess.Popen([sys.executable, "-c", code], env=env, cwd=file.parent)
        time.sleep(0.3 + 0.01 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        table = parsed(file.read_text(), file)
        assert without_setting(file.read_text(), "seed") == FILE
        assert 0 <= table.get("seed", 0) < 999


def test_two_processes_that_set_at_once_lose_nothing(env: dict[str, str], file: Path) -> None:
    code = (
        "import sys; from rwkv_cli.cli.app import run\n"
        "for n in range(15): assert run(['config', 'set', '-q', sys.argv[1], str(n)]) == 0"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, key], env=env, cwd=file.parent)
        for key in ("seed", "top_k")
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    assert parsed(file.read_text(), file) == {"seed": 14, "top_k": 14}


# The editor


KEYS = st.sampled_from(["model", "system", "seed", "temperature", "threads", "top_k"])
VALUES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.text("ab #\"'\\]", max_size=4), max_size=3),
)
LINES = st.sampled_from(
    ["", "# a = 1", "\t# = [", "  ", "#"]
    + [f"{form} # tail" for form in (
        'model = "a # \\" b"', "system = '''\nseed = 1\n'''", 'system = """a\n"quoted""""',
        "seed=3", "  'threads'\t= 4", '"top_k" = +1', "temperature = 1e3")]
)  # fmt: skip


@settings(max_examples=FUZZ, deadline=None)
@given(lines=st.lists(LINES, max_size=6), key=KEYS, value=VALUES, end=st.sampled_from(["\n", ""]))
def test_an_edit_changes_one_setting_and_nothing_else(
    lines: list[str], key: str, value: object, end: str
) -> None:
    text = "\n".join(lines) + end
    where = Path("config.toml")
    try:
        before = parsed(text, where)
    except Exception:  # a key twice
        return
    changed = with_setting(text, key, value)
    assert parsed(changed, where) == {**before, key: value}
    removed = without_setting(changed, key)
    assert parsed(removed, where) == {k: v for k, v in before.items() if k != key}
    if key not in before:
        assert removed in (text, text + "\n")
