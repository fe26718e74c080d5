"""`rwkv chats`: the conversations that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rwkv_cli.cli.asking import may_delete
from rwkv_cli.cli.chatfiles import FORMATS, read_json, read_messages, summary
from rwkv_cli.cli.conversing import open_library
from rwkv_cli.cli.loading import choose_model, load
from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.cli.settings import collect
from rwkv_cli.errors import RefusedError, RwkvError, UsageError
from rwkv_cli.files import read_regular, write_atomic
from rwkv_cli.render.progress import counted
from rwkv_cli.render.sanitize import safe, safe_lines
from rwkv_cli.render.streams import (
    STDOUT,
    is_terminal,
    note,
    read_stdin,
    stdout_sink,
    terminal_width,
)
from rwkv_cli.render.treeview import tree_lines
from rwkv_cli.session import now
from rwkv_cli.session.retell import retold
from rwkv_cli.session.states import costs
from rwkv_cli.store.chatlog import ChatLog
from rwkv_cli.store.library import Library
from rwkv_cli.store.records import Begin
from rwkv_cli.text.templates import load_template
from rwkv_cli.tree import Tree

_LARGEST = 1 << 30  # bytes of a file to import


@click.command(cls=Command)
@click.argument(
    "action",
    default="ls",
    type=click.Choice(["ls", "show", "search", "export", "import", "rename", "rm"]),
)
@click.argument("words", nargs=-1, metavar="[ID|NAME|FILE|WORDS]...")
@click.option(
    "--tree", "as_tree", is_flag=True, help="With show: all turns, not only the last way."
)
@click.option("--format", "kind", default="md", type=click.Choice(list(FORMATS)), help="Of export.")
@click.option("-o", "--output", metavar="FILE", help="With export: write there, not to stdout.")
@click.option("--all", "everything", is_flag=True, help="With export, rm: all conversations.")
@click.option("-m", "--model", metavar="MODEL", help="With import: whose tokens messages get.")
@click.option("--force", is_flag=True, help="With export: replace a file.")
@click.option("-y", "--yes", is_flag=True, help="With rm: do not ask.")
@click.option("--json", "as_json", is_flag=True, help="With ls, search: one JSON object a line.")
@common_options
def chats(action: str, words: tuple[str, ...], **flags: Any) -> None:
    """List, show, search, export and import conversations.

    A conversation is named by its ID, the beginning of it, its name, or words that only it has.
    Exported as json it can be imported without loss; import takes OpenAI messages too.

    \b
    rwkv chats
    rwkv chats show kyoto --tree
    rwkv chats search green dragon
    rwkv chats export --all --format jsonl > chats.jsonl
    rwkv chats rename 853531de "trip to Kyoto"
    """
    _ACTIONS[action](open_library(collect({})), words, flags)


def _ls(library: Library, words: tuple[str, ...], flags: dict[str, Any]) -> None:
    if words:
        raise UsageError(f"ls takes no {words[0]!r}", hint=f"rwkv chats show {words[0]}")
    logs = library.recent()
    _list(logs, flags)
    if not logs and not flags["quiet"]:
        note("There is no conversation yet; start one: rwkv chat")


def _search(library: Library, words: tuple[str, ...], flags: dict[str, Any]) -> None:
    if not words:
        raise UsageError("search takes words", hint="rwkv chats search green dragon")
    _list(library.search(words), flags)


def _list(logs: list[ChatLog], flags: dict[str, Any]) -> None:
    """Print a line for each conversation."""
    sink = stdout_sink()
    for log in logs:
        line = f"{log.id}  {safe(summary(log.tree))}"
        if flags["as_json"]:
            line = json.dumps(_row(log))
        sink.write(f"{line}\n".encode("utf-8", "surrogateescape"))


def _row(log: ChatLog) -> dict[str, Any]:
    assert log.begin is not None
    turns = log.tree.path()
    return {
        "id": log.id,
        "name": log.tree.name,
        "model": log.begin.model_name,
        "created": log.begin.created,
        "turns": len(turns),
        "branches": len(log.tree.turns),
        "tokens": log.tree.position(),
        "first": turns[0].user if turns else "",
    }


def _show(library: Library, words: tuple[str, ...], flags: dict[str, Any]) -> None:
    log = library.find(_one(words, "show"))
    assert log.begin is not None
    if flags["as_tree"]:
        text = _tree(log)
    else:
        text = FORMATS["md"](log.begin, log.tree)
        text = safe_lines(text) if is_terminal(STDOUT) else text
    stdout_sink().write(text.encode("utf-8", "surrogateescape"))


def _tree(log: ChatLog) -> str:
    """Draw the tree; what going to a turn costs is told by the states on the disk."""
    assert log.begin is not None
    cost = costs(log.tree, log.held()).__getitem__
    lines = tree_lines(log.tree, system=log.begin.system, cost=cost, width=terminal_width())
    return "".join(f"{line.text}\n" for line in lines)


def _export(library: Library, words: tuple[str, ...], flags: dict[str, Any]) -> None:
    if flags["everything"] == bool(words):
        raise UsageError("export takes conversations, or --all")
    logs = library.recent() if flags["everything"] else [library.find(word) for word in words]
    if len(logs) > 1 and flags["kind"] == "openai":
        raise UsageError("openai is the format of one conversation", hint="--format jsonl")
    write = FORMATS[flags["kind"]]
    content = "".join(write(log.begin, log.tree) for log in logs if log.begin)
    data = content.encode("utf-8", "surrogateescape")
    if flags["output"]:
        if Path(flags["output"]).is_file() and not flags["force"]:
            raise UsageError(f"{flags['output']} exists", hint="--force replaces it")
        write_atomic(Path(flags["output"]), [data], private=True)
    else:
        stdout_sink().write(data)


def _import(library: Library, words: tuple[str, ...], flags: dict[str, Any]) -> None:
    if not words:
        raise UsageError("import takes files", hint="rwkv chats import chat.json")
    for name in words:
        for where, content in _documents(name):
            log = library.new()
            if isinstance(content, dict) and "kind" in content:
                begin, tree = read_json(content, where)
            else:
                begin, tree = _told(content, where, flags)
            _keep(log, begin, tree)
            if not flags["quiet"]:
                note(f"{log.id}  {safe(summary(log.tree))}")


def _keep(log: ChatLog, begin: Begin, tree: Tree) -> None:
    """Write an imported conversation."""
    log.plan(replace(begin, id=log.id, turns=tuple(tree.turns.values()), based=False))
    log.save()
    for tag, turn in tree.tags.items():
        log.tag(tag, turn)
    if tree.name:
        log.rename(tree.name)
    log.move(tree.head)


def _documents(name: str) -> list[tuple[str, Any]]:
    """Read a file of JSON, or of one JSON object a line.

    Raises:
        RefusedError: It is neither.
    """
    data = b"".join(read_stdin()) if name == "-" else bytes(read_regular(Path(name), _LARGEST))
    try:
        return [(name, json.loads(data))]
    except (ValueError, RecursionError):
        rows = [(n, line) for n, line in enumerate(data.splitlines(), 1) if line.strip()]
    found = []
    for number, line in rows:
        try:
            found.append((f"{name}, line {number}", json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise RefusedError(f"{name}, line {number}: is no JSON") from error
    if not found:
        raise RefusedError(f"{name}: is empty")
    return found


def _told(content: Any, where: str, flags: dict[str, Any]) -> tuple[Begin, Tree]:
    """Write messages in the tokens of a model."""
    system, turns = read_messages(content, where)
    settings = collect({"model": flags["model"]})
    model = load(choose_model(settings, quiet=flags["quiet"]), settings, quiet=flags["quiet"])
    template = load_template(settings.template or model.template)
    begin = Begin("", model.name, str(model.path), model.identity, template.name, system)
    tree = Tree()
    for turn in retold(turns, model.tokenizer, template, system):
        tree.add(turn)
    return replace(begin, created=now()), tree


def _rename(library: Library, words: tuple[str, ...], flags: dict[str, Any]) -> None:
    if len(words) < 2:
        raise UsageError("rename takes a conversation and its new name")
    library.find(words[0]).rename(" ".join(words[1:]))


def _rm(library: Library, words: tuple[str, ...], flags: dict[str, Any]) -> None:
    if flags["everything"] == bool(words):
        raise UsageError("rm takes conversations, or --all")
    there = library.ids()
    ids = (
        there
        if flags["everything"]
        else [word if word in there else library.find(word).id for word in words]
    )  # by its ID, one can be deleted that cannot be read
    if not flags["yes"] and not may_delete("rwkv chats rm", [_line(library, i) for i in ids]):
        return
    for chat in dict.fromkeys(ids):
        library.remove(chat)
    if not flags["quiet"]:
        note(f"Deleted {counted(len(ids), 'conversation')}.")


def _line(library: Library, chat: str) -> str:
    try:
        return f"{chat}  {summary(library.open(chat).tree)}"
    except RwkvError:
        return f"{chat}  (cannot be read)"


def _one(words: tuple[str, ...], action: str) -> str:
    if not words:
        raise UsageError(f"{action} takes a conversation", hint="rwkv chats lists them")
    return " ".join(words)


_ACTIONS: dict[str, Callable[[Library, tuple[str, ...], dict[str, Any]], None]] = {
    "ls": _ls,
    "show": _show,
    "search": _search,
    "export": _export,
    "import": _import,
    "rename": _rename,
    "rm": _rm,
}
