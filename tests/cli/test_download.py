"""`rwkv download` as a user meets it: the list, the picker, the question, and what goes where."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Cli
from cli.running import COMMAND, environment, in_shell
from cli.terminal import Terminal
from hub.liar import CERTIFICATE, Liar, serving

from rwkv_cli.hub import patience

REPO, NAME = "BlinkDL/rwkv7-g1", "rwkv7-g1d-0.1b-20260129-ctx8192.pth"
DATA = random.Random(4).randbytes(400_001)


@pytest.fixture
def liar() -> Iterator[Liar]:
    """A hub with the smallest model of the catalogue, or what passes for it."""
    liar = Liar()
    liar.add(REPO, NAME, DATA)
    liar.add("some/gguf", "a-Q4_0.gguf", DATA[:1000])
    liar.add("some/gguf", "a-Q8_0.gguf", DATA[:2000])
    with serving(liar, "hub") as hub, serving(liar, "cdn") as cdn:
        liar.hub, liar.cdn = hub, cdn
        yield liar


@pytest.fixture
def env(tmp_path: Path, liar: Liar) -> dict[str, str]:
    """An environment that knows this hub alone."""
    changes: dict[str, str | None] = {"HF_ENDPOINT": liar.hub, "SSL_CERT_FILE": str(CERTIFICATE)}
    changes |= dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "HF_TOKEN"))
    return environment(tmp_path, HF_HOME=str(tmp_path / "hf"), **changes)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the model belongs."""
    return tmp_path / "data" / "models" / NAME


def test_the_last_line_of_stdout_is_the_path_and_everything_else_is_on_stderr(
    cli: Cli, place: Path
) -> None:
    result = cli("download", "0.1b")
    assert (result.code, result.out) == (0, f"{place}\n".encode())
    assert place.read_bytes() == DATA
    assert "100 %" in result.err


def test_quiet_is_quiet(cli: Cli, place: Path) -> None:
    result = cli("pull", "0.1b", "-q")
    assert (result.code, result.out, result.err) == (0, f"{place}\n".encode(), "")


def test_several_names_give_several_paths(cli: Cli, place: Path) -> None:
    result = cli("download", "-q", "0.1b", "some/gguf:Q4", "some/gguf:Q8")
    assert result.out.decode().splitlines() == [
        str(place), str(place.with_name("a-Q4_0.gguf")), str(place.with_name("a-Q8_0.gguf"))
    ]  # fmt: skip


def test_events_are_json_and_the_last_one_has_the_path(cli: Cli, place: Path) -> None:
    result = cli("download", "0.1b", "--json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert events[-1] == {"event": "done", "path": str(place)}
    assert {"begin", "note"} <= {event["event"] for event in events}
    done = [event["done"] for event in events if "done" in event and event["event"] != "done"]
    assert done == sorted(done)
    assert result.err == ""


def test_the_list_is_a_table_or_json_and_needs_no_network(cli: Cli, liar: Liar) -> None:
    table = cli("download", "--list", "raven").out.decode().splitlines()
    assert table[0].split() == [
        "name", "size", "here", "version", "chat", "date", "format", "licence"
    ]  # fmt: skip
    assert len(table) == 5
    rows = json.loads(cli("download", "--list", "--json").out)
    assert sum(row["recommended"] for row in rows) <= 1
    assert {"name", "size", "sha256", "licence", "here", "installed"} <= set(rows[0])
    assert cli("download", "--list", "nonsense").code == 3
    assert liar.seen == []


def test_a_repository_can_be_listed(cli: Cli) -> None:
    table = cli("download", "--list", "some/gguf").out.decode().splitlines()
    assert [row.split()[0] for row in table] == ["file", "a-Q4_0.gguf", "a-Q8_0.gguf"]
    rows = json.loads(cli("download", "--list", "some/gguf", "--json").out)
    assert rows[0] == {"file": "a-Q4_0.gguf", "size": 1000}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "--list"),
        (["some/gguf"], 2, "some/gguf:FILE, with one of: a-Q4_0.gguf, a-Q8_0.gguf"),
        (["some/gguf:nothing"], 3, "has no file"),
        (["./model.pth"], 2, "rwkv chat -m ./model.pth, or rwkv models add ./model.pth"),
        (["/a/b/model.pth"], 2, "is a path, and what is here needs no download"),
        (["g1-1.5"], 3, "did you mean g1-1.5b?"),
        (["no/such"], 5, "404"),
        (["0.1b", "--offline"], 5, "forbids the network"),
        (["0.1b", "--endpoint", "nonsense"], 2, "is no URL"),
        (["0.1b", "--connections", "0"], 2, "range"),
        (["0.1b", "--give-up", "-1"], 2, "range"),
    ],
)
def test_what_cannot_be_downloaded_is_an_error(
    cli: Cli, arguments: list[str], code: int, said: str
) -> None:
    result = cli("download", *arguments)
    assert (result.code, result.out) == (code, b"")
    assert said in result.err


def test_another_folder_can_be_named(cli: Cli, tmp_path: Path) -> None:
    result = cli("download", "-q", "0.1b", "-o", tmp_path / "else where")
    assert result.out.decode() == f"{tmp_path / 'else where' / NAME}\n"


def test_a_model_that_is_not_here_is_named_with_the_command_that_fetches_it(
    cli: Cli, liar: Liar
) -> None:
    result = cli("generate", "-m", "1b5", "hi")
    assert result.code == 3
    assert "rwkv download g1-1.5b  (3.1 GB)" in result.err
    assert liar.seen == []


def test_a_model_that_is_here_is_known_by_its_short_name(cli: Cli, place: Path) -> None:
    cli("download", "-q", "0.1b")
    result = cli("generate", "-m", "g1d-0.1b", "hi")
    assert result.code == 6  # found, and it is no model but random bytes
    assert str(place) in result.err


def test_a_model_is_known_by_the_repository_it_came_from(cli: Cli) -> None:
    cli("download", "-q", "some/gguf:Q4")
    for name in ("some/gguf", "some/gguf:a-Q4_0.gguf"):
        result = cli("generate", "-m", name, "hi")
        assert (result.code, "a-Q4_0.gguf" in result.err) == (6, True)
    result = cli("generate", "-m", "other/repo", "hi")
    assert (result.code, "rwkv download other/repo" in result.err) == (3, True)
    for path in ("other/file.pth", "./other", "~/other", "/other"):
        assert "rwkv download" not in cli("generate", "-m", path, "hi").err


def test_at_a_terminal_the_question_comes_before_any_byte(
    env: dict[str, str], liar: Liar, place: Path
) -> None:
    with Terminal([*COMMAND, "generate", "-m", "0.1b", "hi"], env) as terminal:
        terminal.wait_for("[Y/n]")
        assert "Download g1-0.1b (382 MB) from localhost" in terminal.text()
        assert liar.seen == []
        terminal.send(b"n\r")
        assert terminal.finish() == 3
        assert "rwkv download g1-0.1b" in terminal.text()
    with Terminal([*COMMAND, "generate", "-m", "0.1b", "hi"], env) as terminal:
        terminal.wait_for("[Y/n]")
        terminal.send(b"\r")
        assert terminal.finish() == 6
    assert place.read_bytes() == DATA


@pytest.mark.parametrize("columns", [80, 40])
def test_the_picker_begins_at_the_one_to_take_and_fits(
    env: dict[str, str], columns: int, place: Path
) -> None:
    with Terminal([*COMMAND, "download"], env, columns=columns, rows=16) as terminal:
        terminal.wait_for("q leaves")
        terminal.wait_quiet()
        lines = terminal.text().splitlines()
        marked = next(line for line in lines if line.startswith(">"))
        assert marked.startswith("> *") or "*" not in "".join(lines[1:])
        assert all(len(line) <= columns for line in lines)
        for _ in range(60):
            if "g1-0.1b " in next(x for x in terminal.text().splitlines() if x[:1] == ">"):
                break
            terminal.send(b"\x1b[B")
            terminal.wait_quiet(0.05)
        terminal.send(b"\r")
        assert terminal.finish() == 0
        assert "q leaves" not in terminal.text()
    assert place.read_bytes() == DATA


def test_leaving_the_picker_downloads_nothing(env: dict[str, str], liar: Liar) -> None:
    with Terminal([*COMMAND, "download"], env) as terminal:
        terminal.wait_for("q leaves")
        terminal.send(b"q")
        assert terminal.finish() == 0
        assert terminal.text() == "Nothing was downloaded."
    assert liar.seen == []


def test_a_terminal_that_cannot_move_its_cursor_gets_numbers(env: dict[str, str]) -> None:
    env = {**env, "TERM": "dumb"}
    with Terminal([*COMMAND, "download", "some/gguf"], env) as terminal:
        terminal.wait_for("Which one, 1 to 2?")
        terminal.send(b"3\r")
        terminal.send(b"2\r")
        assert terminal.finish() == 0
        assert terminal.text().replace("\n", "").endswith("/a-Q8_0.gguf")
    assert b"\x1b" not in terminal.output


def test_the_line_is_one_line_and_goes_away(env: dict[str, str], liar: Liar) -> None:
    liar.rate = 300_000
    with Terminal([*COMMAND, "download", "0.1b"], env, columns=70, rows=5) as terminal:
        terminal.wait_for("left")
        assert all(len(line) < 70 for line in terminal.text().splitlines())
        assert "g1-0.1b" in terminal.text()
        liar.rate = 0
        assert terminal.finish() == 0
        assert "left" not in terminal.text()


def test_the_path_can_be_piped(env: dict[str, str], place: Path) -> None:
    result = in_shell('m=$("$@" download 0.1b -q) && test -f "$m" && echo "$m"', env)
    assert result.stdout.decode() == f"{place}\n"


def test_the_first_word_comes_before_the_network_answers(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST", 0.01)
    result = cli("download", "0.1b", "--endpoint", "https://127.0.0.1:9")
    assert result.err.startswith("asking 127.0.0.1:9 for BlinkDL/rwkv7-g1\n")
    assert result.code == 5
