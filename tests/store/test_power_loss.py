"""Whatever the moment the power fails: what was announced is there, and the store can be read.

STORE_SUBSETS=256 python -m pytest tests/store/test_power_loss.py
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store.making import begin, library, load, state, turn
from store.power import Recorder, first_loss

from rwkv_cli.engine.statefile import state_parts
from rwkv_cli.errors import NotFoundError
from rwkv_cli.store.budget import Budget
from rwkv_cli.tree import Turn

Scenario = Callable[[Recorder], None]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one: nothing here needs to last."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(dir=place))
    yield folder
    shutil.rmtree(folder)


def _commit(recorder: Recorder) -> None:
    """Turns with drafts and states, on two branches, with going back and forth."""
    log = library(recorder.root, recorder).new()
    log.plan(begin(log.id), state())
    made: list[Turn] = []
    for seed in range(8):
        step = turn(made[-1].id if made else "", seed, size=300 if seed % 3 == 1 else 4)
        if seed % 2:
            for _ in range(2):
                log.draft(step)
                recorder.announce(("draft", log.id, step))
        recorder.announce(("trying", log.id, step.id))
        log.add(step)
        recorder.announce(("turn", log.id, step))
        log.save_state(step.id, "end", state([*log.tree.tokens()] * (seed + 1)))
        made.append(step)
    for place in (made[0].id, "", made[1].id, made[-1].id):
        recorder.announce(("trying", log.id, place))
        log.move(place)
        recorder.announce(("head", log.id, place))
    log.tag("there", made[0].id)
    recorder.announce(("tag", log.id, made[0].id))


def _two_at_once(recorder: Recorder) -> None:
    """Two processes go on with one conversation."""
    first = library(recorder.root, recorder).new()
    first.plan(begin(first.id))
    step = turn(seed=1)
    first.add(step)
    recorder.announce(("turn", first.id, step))
    second = library(recorder.root, recorder).open(first.id)
    for seed in range(2, 6):
        for log in (first, second):
            more = turn(log.tree.head, seed * 10 + (log is second))
            log.draft(more)
            recorder.announce(("draft", log.id, more))
            log.add(more)
            recorder.announce(("turn", log.id, more))
            log.save_state(more.id, "end", state(log.tree.tokens()))


def _evict(recorder: Recorder) -> None:
    """States make room for each other, and a conversation is deleted."""
    whole = library(recorder.root, recorder, limit=6_000)
    log = whole.new()
    log.plan(begin(log.id))
    for seed in range(8):
        step = turn(log.tree.head, seed)
        log.add(step)
        recorder.announce(("turn", log.id, step))
        for point, made in (("ask", log.tree.tokens()[:-4]), ("end", log.tree.tokens())):
            log.save_state(step.id, point, state(list(made)))
    other = whole.new()
    other.plan(begin(other.id))
    other.add(turn(seed=9))
    other.move("")
    whole.remove(other.id)


def _publish(recorder: Recorder) -> None:
    """Prompts, which may be lost, but never wrong."""
    folder = recorder.root / "prefix" / "ab"
    recorder.make_folder(folder)
    for seed in range(6):
        made = state([seed] * 3000, seed)
        path = folder / f"{seed}.rwkvstate"
        recorder.publish(path, state_parts("x", made), durable=False)
        recorder.announce(("prefix", str(path.relative_to(recorder.root)), seed))


def _recover(recorder: Recorder) -> None:
    """A store that a crash and a flipped bit have left is put in order, and used."""
    whole = library(recorder.root, recorder)
    log = whole.open(whole.ids()[0])
    found = log.recover()
    for step in found:
        recorder.announce(("turn", log.id, step))
    assert [step.user for step in found] == ["half"]
    first = next(iter(log.tree.turns))
    assert log.load_state(first, "end", load) is None
    log.save_state(first, "end", state(log.tree.tokens(first)))
    for seed in range(5, 9):
        more = turn(log.tree.head, seed)
        log.add(more)
        recorder.announce(("turn", log.id, more))


def _damaged(root: Path) -> None:
    """A conversation with a draft, a damaged state, a damaged record and a dead temporary."""
    log = library(root).new()
    log.plan(begin(log.id))
    first = turn(seed=1)
    log.add(first)
    log.save_state(first.id, "end", state(log.tree.tokens()))
    log.move("")
    log.draft(Turn("0badc0de", first.id, "half", "an ans", (1,), (2,), "interrupt"))
    log.leave()
    (held,) = log.folder.glob("*.end.rwkvstate")
    held.write_bytes(held.read_bytes()[:-1] + b"?")
    (log.folder / "00000009-12345678.move").write_bytes(b"garbage")
    (log.folder / ".tmp-1-2").write_bytes(b"half")


SCENARIOS: dict[str, tuple[Scenario, Callable[[Path], None] | None]] = {
    "commit": (_commit, None),
    "two at once": (_two_at_once, None),
    "evict": (_evict, None),
    "publish": (_publish, None),
    "recover": (_recover, _damaged),
}


def _record(name: str, tmp_path: Path, without: tuple[str, ...] = ()) -> Recorder:
    scenario, prepare = SCENARIOS[name]
    root = tmp_path / "disk"
    root.mkdir()
    if prepare:
        prepare(root)
    recorder = Recorder(root, without)
    scenario(recorder)
    return recorder


def _check(root: Path, announced: list[object]) -> str | None:
    """Read a store: what is missing of what was announced."""
    whole = library(root)
    logs = {}
    for chat in whole.ids():
        try:
            logs[chat] = whole.open(chat)
        except NotFoundError:
            continue
    Budget(root / "chats", root / "prefix", limit=0).make_room()
    drafted: dict[str, Turn] = {}
    heads: dict[str, set[str]] = {}
    for what, chat, thing in announced:  # type: ignore[misc]
        if what == "prefix":
            if (root / chat).exists() and load(root / chat).tokens != [thing] * 3000:
                return f"a wrong prompt {chat}"
            continue
        if chat not in logs and what == "trying":
            continue
        if chat not in logs:
            return f"the conversation {chat}"
        tree = logs[chat].tree
        if what == "turn" and tree.turns.get(thing.id) != thing:
            return f"turn {thing.id}"
        if what in ("trying", "head", "turn"):
            place = getattr(thing, "id", thing)
            heads[chat] = heads.get(chat, {""}) | {place} if what == "trying" else {place}
        if what == "turn":
            drafted.pop(thing.id, None)
        if what == "draft":
            drafted[thing.id] = thing
        if what == "tag" and tree.tags.get("there") != thing:
            return "a tag"
    for chat, log in logs.items():
        if "trying" in {note[0] for note in announced} and log.tree.head not in heads.get(
            chat, {""}
        ):
            return f"the place in {chat}"
        missing = set(drafted) - set(log.tree.turns) - {draft.id for draft in log.drafts()}
        if missing and drafted:
            return f"an unfinished answer of {chat}"
    return _goes_on(logs)


def _goes_on(logs: dict[str, object]) -> str | None:
    """Use what is there: a turn more must find its place."""
    for log in logs.values():
        log.recover()  # type: ignore[attr-defined]
        step = turn(log.tree.head, seed=99)  # type: ignore[attr-defined]
        log.add(step)  # type: ignore[attr-defined]
        log.refresh()  # type: ignore[attr-defined]
        if step.id not in log.tree.turns:  # type: ignore[attr-defined]
            return "the next turn"
    return None


def test_no_power_failure_loses_what_was_announced(tmp_path: Path, scratch: Path) -> None:
    counts = {}
    for name in SCENARIOS:
        (tmp_path / name).mkdir()
        (scratch / name).mkdir()
        recorder = _record(name, tmp_path / name)
        counts[name], lost = first_loss(recorder, scratch / name, _check)
        assert lost is None, (name, lost)
    assert sum(counts.values()) >= 5000, counts


@pytest.mark.parametrize(
    ("scenario", "without"),
    [
        ("commit", "_write"),
        ("commit", "_publish"),
        ("commit", "replace"),
        ("commit", "make_folder"),
    ],
)
def test_every_fsync_is_needed(scenario: str, without: str, tmp_path: Path, scratch: Path) -> None:
    recorder = _record(scenario, tmp_path, (without,))
    _, lost = first_loss(recorder, scratch, _check)
    assert lost is not None


def test_every_fsync_of_the_code_is_tried() -> None:
    """A new call of fsync must get its line above."""
    import ast
    import inspect

    from rwkv_cli.store import disk

    callers = set()
    for function in ast.walk(ast.parse(inspect.getsource(disk))):
        if isinstance(function, ast.FunctionDef):
            for call in ast.walk(function):
                if isinstance(call, ast.Attribute) and call.attr in ("sync", "sync_folder"):
                    callers.add(function.name)
    assert callers == {"_write", "_publish", "replace", "make_folder"}
