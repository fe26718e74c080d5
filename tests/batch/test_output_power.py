"""Whatever the moment the power fails: rows that were said to be kept are there, and the same
command ends with the same file.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch.outputs import (
    add,
    expected,
    facts,
    fails,
    finish,
    line,
    stream_digest,
    stream_facts,
)
from batch.watching import Watched
from store.power import first_loss

from rwkv_cli.batch import output as module
from rwkv_cli.batch import rowfile
from rwkv_cli.batch.manifest import Manifest, manifest_path, save
from rwkv_cli.batch.output import Output

ROWS = 6
Scenario = Callable[[Watched], None]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one: nothing here needs to last."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


def _errors(root: Path) -> Path | None:
    """Scenarios that keep failed rows apart have a folder of that name."""
    return root / "bad.jsonl" if "apart" in root.name else None


def _wanted(root: Path) -> Manifest:
    return stream_facts() if "stream" in root.name else facts(ROWS)


def _open(root: Path, **how: bool) -> Output:
    return Output(root / "out.jsonl", _wanted(root), errors=_errors(root), **how)


def _step(watched: Watched, output: Output, *rows: int) -> None:
    """Rows that are added, and then said to be kept."""
    if "stream" in watched.root.name:
        for read in range(1, max(rows) + 3):
            output.reached(read, lambda: stream_digest(read))  # noqa: B023 - used at once
    add(output, [row for row in rows if row not in output.done])
    output.sync()
    watched.announce(("kept", set(rows)))


def _usual(watched: Watched) -> None:
    with _open(watched.root) as output:
        _step(watched, output, 3)
        _step(watched, output, 1, 0)
    with _open(watched.root) as output:
        _step(watched, output, 5, 2)
        _step(watched, output, 4)
        output.finish()
        watched.announce(("complete", set(range(ROWS))))


def _again(watched: Watched) -> None:
    """Rows that failed run again; they do not fail this time, and fail once more at last."""
    bad = {row for row in range(ROWS) if fails(row)}
    watched.announce(("kept", set(range(ROWS))))
    watched.announce(("given up", bad))
    with _open(watched.root, retry_errors=True) as output:
        for row in bad:
            output.add(row, line(row + 1).replace(b":%d," % (row + 1), b":%d," % row, 1))
        output.sync()
        watched.announce(("kept", bad))


def _restart(watched: Watched) -> None:
    watched.announce(("kept", set(range(ROWS))))
    watched.announce(("given up", set(range(ROWS))))
    with _open(watched.root, restart=True) as output:
        _step(watched, output, 2, 1)


def _ready(root: Path) -> None:
    finish(root / "out.jsonl", ROWS, errors=_errors(root))


def _torn(root: Path) -> None:
    save(manifest_path(root / "out.jsonl"), facts(ROWS, seed=1))
    (root / "out.jsonl").write_bytes(line(4) + line(5)[:-9])


def _manifest_alone(root: Path) -> None:
    save(manifest_path(root / "out.jsonl"), facts(ROWS, seed=1))


SCENARIOS: dict[str, tuple[Scenario, Callable[[Path], None] | None]] = {
    "usual": (_usual, None),
    "usual apart": (_usual, None),
    "usual stream": (_usual, None),
    "torn": (_usual, _torn),
    "manifest alone": (_usual, _manifest_alone),
    "again": (_again, _ready),
    "again apart": (_again, _ready),
    "restart": (_restart, _ready),
    "restart apart": (_restart, _ready),
}


def _record(
    name: str, tmp_path: Path, without: str = "", monkeypatch: pytest.MonkeyPatch | None = None
) -> Watched:
    scenario, prepare = SCENARIOS[name]
    root = tmp_path / name
    root.mkdir()
    if prepare:
        prepare(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PERIOD", 1e9)
        watched = Watched(root, patch, without)
        scenario(watched)
    return watched


def _check(name: str) -> Callable[[Path, list[object]], str | None]:
    def check(root: Path, announced: list[object]) -> str | None:
        place = root / name
        place.mkdir()
        for file in list(root.iterdir()):
            if file != place:
                file.rename(place / file.name)
        kept: set[int] = set()
        complete = False
        for what, rows in announced:  # type: ignore[misc]
            kept = kept - rows if what == "given up" else kept | rows
            complete = what == "complete"
        return _goes_on(place, kept, complete=complete)

    return check


def _goes_on(root: Path, kept: set[int], *, complete: bool) -> str | None:
    """Run the same command to its end: what is missing, or wrong."""
    try:
        with _open(root) as output:
            if any(row not in output.done for row in kept):
                return f"one of the rows {kept}"
            if complete and not output.complete:
                return "that all was done"
            missing = [row for row in range(ROWS) if row not in output.done]
            if "stream" in root.name:
                for read in range(1, ROWS + 3):
                    output.reached(read, lambda: stream_digest(read))  # noqa: B023
            add(output, missing)
            output.finish()
    except Exception as error:
        return f"the next run: {error}"
    if len(list(root.iterdir())) != (3 if _errors(root) else 2):
        return f"tidiness: {list(root.iterdir())}"
    return _wrong(root)


def _wrong(root: Path) -> str | None:
    """Compare with an undisturbed run; a row that was tried again may be either."""
    files = [root / "out.jsonl", *filter(None, [_errors(root)])]
    lines = [file.read_bytes().splitlines(keepends=True) for file in files]
    found = sorted(itertools.chain(*lines), key=lambda text: int(text[9:].partition(b",")[0]))
    again = [text for text in found if b'"error"' not in text and b"row 4" in text]
    if "again" in root.name and len(again) == 2:  # see `_again`
        return None if len(found) == ROWS else "a row"
    if b"".join(found) != expected(ROWS):
        return "the file"
    return None if all(text == sorted(text) for text in lines) else "the order"


def test_no_power_failure_loses_a_row_that_was_kept(tmp_path: Path, scratch: Path) -> None:
    counts = {}
    for name in SCENARIOS:
        (scratch / name).mkdir()
        watched = _record(name, tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: None)
            counts[name], lost = first_loss(watched, scratch / name, _check(name))
        assert lost is None, (name, lost)
    assert sum(counts.values()) >= 600, counts


MUTANTS = [
    ("usual", "sync:file"),
    ("again", "sync:file"),
    ("again apart", "_shorten:file"),
    ("restart", "_shorten:file"),
    ("usual", "replacing:file"),
    ("usual", "replacing:folder"),
    ("manifest alone", "__init__:folder"),
]


@pytest.mark.parametrize(("scenario", "without"), MUTANTS)
def test_every_fsync_is_needed(scenario: str, without: str, tmp_path: Path, scratch: Path) -> None:
    watched = _record(scenario, tmp_path, without)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        _, lost = first_loss(watched, scratch, _check(scenario))
    assert lost is not None


def test_every_fsync_of_the_code_is_tried() -> None:
    """A new call of fsync must get its line above."""
    callers = set()
    for source in (module, rowfile):
        for function in ast.walk(ast.parse(inspect.getsource(source))):
            if isinstance(function, ast.FunctionDef):
                for call in ast.walk(function):
                    named = (
                        call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")
                    )
                    if named in ("fsync", "sync_folder"):
                        callers.add(function.name)
    assert callers == {"sync", "_shorten", "__init__"}
