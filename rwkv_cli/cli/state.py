"""`rwkv state`: states with a name, made once and asked many times."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwkv_cli.cli.asking import may_delete
from rwkv_cli.cli.feeding import Feeding
from rwkv_cli.cli.loading import choose_model, load, open_budget
from rwkv_cli.cli.options import Command, common_options, model_options
from rwkv_cli.cli.prompt import gather, raw_text
from rwkv_cli.cli.settings import collect
from rwkv_cli.engine.statefile import inspect_state, short, verify_state
from rwkv_cli.errors import NotFoundError, RwkvError, UsageError
from rwkv_cli.places import states_folder
from rwkv_cli.render.progress import Progress, counted
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDIN, is_terminal, note, stdout_sink
from rwkv_cli.store.budget import INNER, LATEST, PREFIX
from rwkv_cli.store.disk import make_private
from rwkv_cli.store.named import find_state, named_states, path_for

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model
    from rwkv_cli.engine.state import State

Words = tuple[str, ...]
Flags = dict[str, Any]

_CLASSES = {
    PREFIX: "prompts that were read",
    INNER: "turns inside of conversations",
    LATEST: "last turns of conversations",
}


@click.command(cls=Command)
@click.argument(
    "action",
    default="ls",
    type=click.Choice(
        ["ls", "make", "feed", "show", "verify", "export", "import", "rm", "gc", "rebuild"]
    ),
)
@click.argument("words", nargs=-1, metavar="[NAME]...")
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="With make, feed: read.")
@click.option("--force", is_flag=True, help="Replace a state of that name.")
@click.option("--every", type=float, default=30.0, metavar="S", help="With feed: save this often.")
@click.option("--dry-run", is_flag=True, help="With gc: only tell what would go.")
@click.option("-y", "--yes", is_flag=True, help="With rm: do not ask.")
@click.option("--json", "as_json", is_flag=True, help="With ls, show: JSON.")
@model_options
@common_options
def state(action: str, words: Words, **flags: Any) -> None:
    """Keep, feed and inspect saved states.

    A state is all that a model has read, in a file of a few megabytes; make reads stdin or files,
    feed goes on reading, and generate answers from it. A state is called by its name, or by the
    path of its file.

    \b
    rwkv state make manual -f manual.txt
    rwkv generate --state manual --chat "Which port?"
    tail -f log | rwkv state feed ops
    rwkv state export manual manual.rwkvstate
    rwkv state import tuned.pth mystyle -m 1.5b
    """
    _ACTIONS[action](words, flags)


def _ls(words: Words, flags: Flags) -> None:
    if words:
        raise UsageError(f"ls takes no {words[0]!r}", hint=f"rwkv state show {words[0]}")
    sink = stdout_sink()
    for name, path in named_states().items():
        try:
            facts = _facts(path)
        except RwkvError as error:  # the others are listed all the same
            note(f"rwkv: {safe(error.message)}")
            continue
        line = f"{name:<24} {facts['tokens']:>12,} tokens {facts['bytes'] / 1e6:>8,.1f} MB"
        if flags["as_json"]:
            line = json.dumps({"name": name, **facts})
        sink.write(f"{line}\n".encode())
    if not named_states() and not flags["quiet"]:
        note("There is no named state; make one: rwkv state make NAME -f FILE")


def _facts(path: Path) -> dict[str, Any]:
    info = inspect_state(path)
    return {
        "tokens": info.position,
        "bytes": info.nbytes,
        "model": info.identity.arch,
        "weights": info.identity.weights,
        "tokenizer": info.identity.tokenizer,
        "numerics": info.identity.numerics,
        "writer": info.writer,
        "file": str(path),
    }


def _show(words: Words, flags: Flags) -> None:
    facts = _facts(find_state(_one(words, "show")))
    lines = [f"{key:<10} {safe(short(str(value)))}" for key, value in facts.items()]
    text = json.dumps(facts) if flags["as_json"] else "\n".join(lines)
    stdout_sink().write(f"{text}\n".encode())


def _make(words: Words, flags: Flags) -> None:
    """Read a prompt into a new state."""
    name = _one(words[:1], "make")
    path = _free(path_for(name), flags)
    prompt = gather(words[1:], flags["files"])
    if not prompt.words and not prompt.has_document:
        raise UsageError("there is nothing to read", hint=f"rwkv state make {name} -f FILE")
    model = _model(flags)
    made = model.zero_state()
    progress = Progress("reading", "bytes", prompt.size(), enabled=not flags["quiet"])
    done = 0

    def pieces() -> Any:
        nonlocal done
        for piece in raw_text(prompt):
            done += len(piece)
            yield piece

    try:
        tokens = model.tokenizer.encode_stream(pieces())
        model.advance_stream(tokens, made, lambda _: progress.update(done))
    finally:
        progress.finish()
    if made.logits is None:
        raise UsageError("there is nothing to read: it is empty")
    _save(made, path)
    _tell(name, made, flags)


def _feed(words: Words, flags: Flags) -> None:
    """Go on reading into a state, for as long as there is something to read."""
    name = _one(words[:1], "feed")
    if not 0 <= flags["every"] < float("inf"):
        raise UsageError("--every takes seconds")
    prompt = gather(words[1:], flags["files"])
    if not prompt.words and not prompt.files and is_terminal(STDIN):
        raise UsageError("there is nothing to read", hint=f"tail -f log | rwkv state feed {name}")
    path, model = path_for(name), _model(flags)
    kept = model.load_state(path) if path.exists() else model.zero_state()
    make_private(path.parent)
    feeding = Feeding(model, kept, path, every=flags["every"], quiet=flags["quiet"])
    feeding.run(prompt)
    _tell(feeding.path.name.removesuffix(path.suffix), feeding.state, flags)


def _verify(words: Words, flags: Flags) -> None:
    """Prove states whole; with -m, prove them to be of that model."""
    if not words:
        raise UsageError("verify takes states", hint="rwkv state verify NAME")
    model = _model(flags) if flags["model"] else None
    for word in words:
        path = find_state(word)
        found = model.load_state(path) if model else verify_state(path)
        if not flags["quiet"]:
            note(f"{safe(word)}: whole, {counted(found.position, 'token')}")


def _export(words: Words, flags: Flags) -> None:
    if len(words) != 2:
        raise UsageError("export takes a state and a file")
    source, target = find_state(words[0]), Path(words[1])
    if target.exists() and not flags["force"]:
        raise UsageError(f"{target} exists", hint="--force replaces it")
    verify_state(source).save(target)


def _import(words: Words, flags: Flags) -> None:
    """Take in a state file, or a tuned initial state of the community."""
    if not 1 <= len(words) <= 2:
        raise UsageError("import takes a file, and what the state shall be called")
    source = Path(words[0])
    if not source.exists():
        raise NotFoundError(f"no such file: {source}")
    name = words[1] if len(words) > 1 else source.stem
    path = _free(path_for(name), flags)
    if source.suffix == path.suffix:
        found = verify_state(source)
    else:
        from rwkv_cli.engine.tuned import read_tuned

        if not flags["model"]:
            raise UsageError("a tuned state belongs to a model", hint="name it with -m MODEL")
        found = read_tuned(source, _model(flags))
    _save(found, path)
    _tell(name, found, flags)


def _rm(words: Words, flags: Flags) -> None:
    if not words:
        raise UsageError("rm takes the names of states")
    paths = [path_for(word) for word in words]
    for word, path in zip(words, paths, strict=True):
        if not path.is_file():
            raise NotFoundError(f"there is no state {word!r}", hint="rwkv state lists them")
    if not flags["yes"] and not may_delete("rwkv state rm", words):
        return
    for path in paths:
        path.unlink()
    if not flags["quiet"]:
        note(f"Deleted {counted(len(paths), 'state')}.")


def _gc(words: Words, flags: Flags) -> None:
    """Make the states that may go fit their room."""
    if words:
        raise UsageError(f"gc takes no {words[0]!r}")
    budget = open_budget(collect(flags))
    rows, going = budget.held(), budget.plan() or []
    sink = stdout_sink()
    for kind, title in _CLASSES.items():
        there = [row for row in rows if row.kind == kind]
        gone = [row for row in going if row.kind == kind]
        size, freed = (sum(row.nbytes for row in some) / 1e6 for some in (there, gone))
        line = f"{title:<32} {len(there):>6,} {size:>10,.1f} MB"
        sink.write(f"{line}   {len(gone):,} go, {freed:,.1f} MB\n".encode())
    sink.write(f"room for {budget.limit() / 1e6:,.1f} MB\n".encode())
    if not flags["dry_run"]:
        budget.make_room()


def _rebuild(words: Words, flags: Flags) -> None:
    """Read the tokens of a state again with another model."""
    name = _one(words, "rebuild")
    if not flags["model"]:
        raise UsageError("rebuild takes a model", hint="name it with -m MODEL")
    path = find_state(name)
    old, model = verify_state(path), _model(flags)
    assert old.identity is not None
    if old.identity.tokenizer != model.identity.tokenizer:
        raise UsageError(
            f"{name} holds tokens of another tokenizer than {model.name} has",
            hint="make it again from its text: rwkv state make",
        )
    if old.tokens.forgotten:
        raise UsageError(f"{name} has forgotten its first {old.tokens.forgotten:,} tokens")
    if not old.position:
        raise UsageError(f"{name} holds no tokens: it is an initial state of its own model")
    made = model.zero_state()
    progress = Progress("reading", "tokens", old.position, enabled=not flags["quiet"])
    try:
        model.advance_stream([old.tokens[:]], made, progress.update)
    finally:
        progress.finish()
    made.attachments = old.attachments
    made.save(path)
    _tell(name, made, flags)


def _model(flags: Flags) -> Model:
    settings = collect(flags)
    return load(choose_model(settings, quiet=flags["quiet"]), settings, quiet=flags["quiet"])


def _free(path: Path, flags: Flags) -> Path:
    """Give a path that may be written.

    Raises:
        UsageError: There is such a state.
    """
    if path.exists() and not flags["force"]:
        raise UsageError(f"there is a state {path.stem!r}", hint="--force replaces it")
    return path


def _save(made: State, path: Path) -> None:
    make_private(states_folder())
    made.save(path)


def _tell(name: str, made: State, flags: Flags) -> None:
    if not flags["quiet"]:
        size = made.nbytes / 1e6
        note(f"{name}: {counted(made.position, 'token')}, {size:.1f} MB; ask it:")
        note(f'  rwkv generate --state {name} --chat "your question"')


def _one(words: Words, action: str) -> str:
    if len(words) != 1:
        raise UsageError(f"{action} takes a state", hint="rwkv state lists them")
    return os.fspath(words[0])


_ACTIONS: dict[str, Callable[[Words, Flags], None]] = {
    "ls": _ls,
    "make": _make,
    "feed": _feed,
    "show": _show,
    "verify": _verify,
    "export": _export,
    "import": _import,
    "rm": _rm,
    "gc": _gc,
    "rebuild": _rebuild,
}
