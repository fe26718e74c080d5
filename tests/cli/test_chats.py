"""Conversations on the command line: listed, found, written and read back without loss."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cli.conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st
from store.making import begin, library, state, turn

from rwkv_cli.cli.chatfiles import as_json, as_openai, read_json
from rwkv_cli.errors import RefusedError
from rwkv_cli.render.treeview import tree_lines
from rwkv_cli.store.chatlog import ChatLog
from rwkv_cli.store.records import from_bytes, to_bytes


@pytest.fixture
def talk(env: dict[str, str]) -> ChatLog:
    """A conversation with two branches, a tag and a name."""
    log = library(Path(env["RWKV_DATA_DIR"])).new()
    log.plan(begin(log.id, system="Be brief."))
    first = turn(seed=1)
    log.add(first)
    for seed in (2, 3):
        log.add(turn(first.id, seed))
    log.tag("here", first.id)
    log.rename("trip to Kyoto")
    return log


def _logs(env: dict[str, str]) -> list[ChatLog]:
    return library(Path(env["RWKV_DATA_DIR"])).recent()


def test_without_conversations_the_way_to_one_is_told(cli: Cli) -> None:
    result = cli("chats")
    assert (result.code, result.out) == (0, b"")
    assert "rwkv chat" in result.err


def test_conversations_are_listed(cli: Cli, talk: ChatLog) -> None:
    line = cli("chats").out.decode()
    assert line.startswith(f"{talk.id}  trip to Kyoto")
    row = json.loads(cli("chats", "--json").out)
    assert (row["id"], row["turns"], row["branches"]) == (talk.id, 2, 3)


@pytest.mark.parametrize("word", ["trip to Kyoto", "TRIP TO KYOTO"])
def test_a_name_is_enough(cli: Cli, talk: ChatLog, word: str) -> None:
    shown = cli("chats", "show", *word.split()).out.decode("utf-8", "surrogateescape")
    assert talk.tree.path()[-1].answer.strip() in shown
    assert "Be brief." in shown


def test_the_tree_shows_every_branch(cli: Cli, talk: ChatLog) -> None:
    shown = cli("chats", "show", talk.id, "--tree").out.decode()
    for label in ("1 you", "2a rwkv", "2b rwkv", "#here", "◀"):
        assert label in shown


def test_words_are_found_wherever_they_stand(cli: Cli, env: dict[str, str], talk: ChatLog) -> None:
    other = library(Path(env["RWKV_DATA_DIR"])).new()
    other.plan(begin(other.id))
    other.add(turn(seed=5))
    for step in talk.tree.turns.values():
        word = step.user.split()[0].upper()
        assert cli("chats", "search", word).out.decode().startswith(talk.id)
    assert cli("chats", "search", "nothing", "of", "that").out == b""


def test_json_comes_back_without_loss(
    cli: Cli, env: dict[str, str], talk: ChatLog, tmp_path: Path
) -> None:
    path = tmp_path / "chat.json"
    assert cli("chats", "export", talk.id, "--format", "json", "-o", path).code == 0
    assert cli("chats", "import", path).code == 0
    (copy,) = [log for log in _logs(env) if log.id != talk.id]
    assert copy.tree == talk.tree
    assert copy.begin is not None
    assert (copy.begin.system, copy.begin.identity) == ("Be brief.", begin("x").identity)


def test_openai_messages_are_those_of_the_last_way(talk: ChatLog) -> None:
    found = json.loads(as_openai(talk.begin, talk.tree))["messages"]
    assert [row["role"] for row in found] == ["system", *["user", "assistant"] * 2]
    assert found[-1]["content"] == talk.tree.path()[-1].answer.strip()


def test_messages_of_others_become_a_conversation(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"role": "system", "content": "S"}, {"role": "user", "content": "hi"}]
    rows.append({"role": "assistant", "content": "hello"})
    path.write_text(json.dumps({"messages": rows}) + "\n" + json.dumps(rows) + "\n")
    assert cli("chats", "import", "-m", tiny, path).code == 0
    assert len(_logs(env)) == 2
    (step,) = _logs(env)[0].tree.path()
    assert bytes(step.prompt) == b"System: S\n\nUser: hi\n\nAssistant:"
    assert bytes(step.reply) == b" hello"
    result = cli("chat", "-c", "-N", "1", "and?")
    assert result.code == 0
    assert len(_logs(env)[0].tree.path()) == 2


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "5", "{}", "[]", '{"messages": 5}', '[{"role": "user"}]',
        '[{"role": "user", "content": "a"}]', '[{"role": "robot", "content": "a"}]',
        '{"kind": "rwkv-chat", "version": 1}', '{"kind": "other", "version": 1}',
        '[{"role": "user", "content": 5}, {"role": "assistant", "content": "x"}]', "[" * 100_000,
        '[{"role": [], "content": "a"}]',
    ],
)  # fmt: skip
def test_other_files_are_refused(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    result = cli("chats", "import", "-m", tiny, path)
    assert result.code == 6
    assert str(path) in result.err
    assert _logs(env) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"created": "",', '"created": 5,'), ('"tokenizer": "bb"', '"tokenizer": 5'),
        ('"based": false', '"based": false, "more": "x"'), ('"parent": ""', '"parent": []'),
    ],
)  # fmt: skip
def test_an_export_with_a_field_of_another_type_is_refused(
    cli: Cli, env: dict[str, str], talk: ChatLog, tmp_path: Path, old: str, new: str
) -> None:
    path = tmp_path / "x.json"
    text = as_json(talk.begin, talk.tree)
    assert old in text
    path.write_text(text.replace(old, new))
    assert cli("chats", "import", path).code == 6
    assert len(_logs(env)) == 1


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(max_examples=300)
@given(st.data())
def test_no_changed_export_does_harm(data: st.DataObject) -> None:
    log = library(Path("nowhere")).new()
    log.plan(begin(log.id, turns=(turn(seed=1),)))
    content = json.loads(as_json(log.begin, log.tree))
    start = content["begin"]
    place = data.draw(st.sampled_from([content, start, start["identity"], content["turns"][0]]))
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(_VALUES)
    try:
        begun, tree = read_json(content, "x")
    except RefusedError:
        return
    kept = replace(begun, turns=tuple(tree.turns.values()))
    assert from_bytes(to_bytes(kept), "x") == kept
    assert [*tree_lines(tree, system="", cost=len, width=80)]


_HALF = r"a \ud83d b \ude00 \udc85"  # halves of characters, and a byte that is no UTF-8


@pytest.mark.parametrize("kind", ["messages", "ours"])
def test_half_a_character_is_replaced_and_a_foreign_byte_kept(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path, talk: ChatLog, kind: str
) -> None:
    path = tmp_path / "x.json"
    if kind == "ours":
        path.write_text(as_json(talk.begin, talk.tree).replace("trip to Kyoto", _HALF))
    else:
        rows = [{"role": "user", "content": "HALF"}, {"role": "assistant", "content": "HALF"}]
        path.write_text(json.dumps(rows).replace("HALF", _HALF))
    assert cli("chats", "import", "-m", tiny, path).code == 0
    (found,) = [log for log in _logs(env) if log.id != talk.id]
    said = {found.tree.name, *(step.user for step in found.tree.turns.values())}
    assert "a \ufffd b \ufffd \udc85" in said
    for kind in ("md", "json", "jsonl", "openai"):
        assert cli("chats", "export", found.id, "--format", kind).code == 0
    assert cli("chats", "show", found.id).code == 0


def test_a_conversation_that_began_from_a_state_is_not_half_exported(
    cli: Cli, env: dict[str, str], talk: ChatLog, tmp_path: Path
) -> None:
    log = library(Path(env["RWKV_DATA_DIR"])).new()
    log.plan(begin(log.id, based=True), state([1, 2]))
    log.add(turn(seed=4))
    path = tmp_path / "chat.json"
    result = cli("chats", "export", "--all", "--format", "json", "-o", path)
    assert (result.code, path.exists()) == (2, False)
    assert log.id in result.err
    assert cli("chats", "export", log.id, "--format", "md", "-o", path).code == 0
    path.write_text(as_json(talk.begin, talk.tree).replace('"based": false', '"based": true'))
    result = cli("chats", "import", path)
    assert result.code == 6
    assert "began from a state" in result.err
    assert len(_logs(env)) == 2


def test_a_new_name_is_kept(cli: Cli, env: dict[str, str], talk: ChatLog) -> None:
    assert cli("chats", "rename", talk.id, "old", "trip").code == 0
    assert _logs(env)[0].tree.name == "old trip"


def test_nothing_is_deleted_unasked(cli: Cli, env: dict[str, str], talk: ChatLog) -> None:
    assert cli("chats", "rm", talk.id).code == 2
    assert len(_logs(env)) == 1
    assert cli("chats", "rm", talk.id, "-y").code == 0
    assert _logs(env) == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["show", "x"], 3), (["show"], 2), (["search"], 2), (["export"], 2), (["rm"], 2),
        (["rename", "x"], 2), (["ls", "x"], 2), (["import"], 2), (["import", "/nowhere"], 3),
        (["rm", "ffffffff", "-y"], 3), (["other"], 2),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(cli: Cli, line: list[str], code: int) -> None:
    result = cli("chats", *line)
    assert (result.code, result.out) == (code, b"")
    assert result.err


def test_a_conversation_is_listed_by_its_first_question(cli: Cli, tiny: Path) -> None:
    cli("chat", "-m", tiny, "-N", "1", "what is", "this?", stdin=b"a text")
    assert b"what is this?" in cli("chats").out
    assert b"stdin" not in cli("chats").out


def test_an_export_replaces_no_file_unasked(cli: Cli, talk: ChatLog, tmp_path: Path) -> None:
    target = tmp_path / "kept.md"
    target.write_text("keep")
    assert cli("chats", "export", talk.id, "-o", target).code == 2
    assert target.read_text() == "keep"
    assert cli("chats", "export", talk.id, "-o", target, "--force").code == 0
    assert target.read_text() != "keep"


def test_a_conversation_without_a_beginning_can_be_deleted(
    cli: Cli, env: dict[str, str], talk: ChatLog
) -> None:
    (begun,) = talk.folder.glob("*.begin")
    begun.unlink()
    result = cli("chats")
    assert (result.code, result.out) == (0, b"")
    assert cli("chats", "rm", talk.id, "-y").code == 0
    assert not talk.folder.exists()


def test_messages_in_parts_and_from_a_pipe_are_taken(cli: Cli, tiny: Path) -> None:
    said = [
        {"role": "user", "content": [{"type": "text", "text": "green"}, {"type": "image"}]},
        {"role": "assistant", "content": "dragon"},
    ]
    data = json.dumps({"messages": said}).encode()
    assert cli("chats", "import", "-", "-m", tiny, stdin=data).code == 0
    assert b"green" in cli("chats", "show", "green").out
    for wrong, why in ((said[:1], "no answer"), ([], "no messages")):
        result = cli("chats", "import", "-", "-m", tiny, stdin=json.dumps(wrong).encode())
        assert result.code == 6
        assert why in result.err
