"""What an output was made with, in a file beside it: whoever goes on with the output must ask the
same of the same model, or the file would be two halves that do not belong together.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rwkv_cli.errors import MismatchError, NotFoundError, RefusedError, UsageError
from rwkv_cli.files import read_regular, write_atomic
from rwkv_cli.version import __version__

FORMAT = 1
LAYOUTS = ("jsonl", "openai")

_LIMIT = 16 << 20  # bytes
_LONG = 60  # characters of a value that are told
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class InputFacts:
    """Which rows are asked for.

    Attributes:
        kind: How they are written: "jsonl", "lines", "csv", "openai", …
        rows: How many a file has; how many of a stream were read so far.
        sha256: Of the file; of the stream up to there.
        stream: Whether it can be read only once.
        name: What the file is called.
    """

    kind: str
    rows: int
    sha256: str
    stream: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an output was made with.

    Attributes:
        model: Fingerprint of the weights.
        numerics: Name of the arithmetic.
        input: The rows.
        parameters: Everything else that changes a row's text, as JSON can hold it.
        layout: How lines are written: "jsonl" or "openai".
        template: Digest of the template; None for none.
        errors: Name of the file that failed rows go to; None when they are among the others.
        seed: What the rows' own seeds follow from; None as long as any will do.
        model_name: What the model was called; only told.
        complete: How many rows there were when all were done and in order; None before.
    """

    model: str
    numerics: str
    input: InputFacts
    parameters: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "jsonl"
    template: str | None = None
    errors: str | None = None
    seed: int | None = None
    model_name: str = ""
    complete: int | None = None


def manifest_path(output: Path) -> Path:
    """Name the manifest of an output."""
    return output.with_name(output.name + ".run.json")


def save(path: Path, manifest: Manifest) -> None:
    """Write a manifest, durably.

    Raises:
        StorageError: The disk refused; the old one is untouched.
    """
    content = {"format": FORMAT, "program": f"rwkv {__version__}", **asdict(manifest)}
    content["digest"] = _digest(content)
    text = json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False)
    write_atomic(path, [text.encode() + b"\n"])


def load(path: Path) -> Manifest | None:
    """Read a manifest; None when there is none.

    Raises:
        MismatchError: A newer version of this program wrote it.
        RefusedError: It is damaged.
        StorageError: It cannot be read.
    """
    try:
        text = read_regular(path, _LIMIT)
    except NotFoundError:
        return None
    hint = "--restart throws its rows away and begins again; another -o leaves them where they are"
    try:
        content = json.loads(text.decode("utf-8"))
        number, digest = content["format"], content.pop("digest", None)
        if isinstance(number, int) and number > FORMAT:
            raise MismatchError(
                f"{path} was written by a newer version of this program (format {number})",
                hint="install that version, or choose another -o",
            )
        if number == FORMAT and digest == _digest(content):
            return _manifest(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(f"{path} is damaged: it is no manifest", hint=hint) from error
    raise RefusedError(f"{path} is damaged: its digest is not that of its content", hint=hint)


def compare(old: Manifest, new: Manifest) -> list[str]:
    """Tell what differs, each as the end of "OUT was made with …".

    Args:
        old: What an output was made with.
        new: What is asked for now. A seed of None agrees with any; how many rows of a stream there
            are is known when they have been read.
    """
    return [f"{name} {before}; now it is {now}" for name, before, now in _differences(old, new)]


def refuse_changed(output: Path, old: Manifest, new: Manifest) -> None:
    """Refuse to go on with an output that was made with something else.

    Raises:
        UsageError: Something differs.
    """
    found = compare(old, new)
    if found:
        more = f", and {len(found) - 3} more things differ" if len(found) > 3 else ""
        raise UsageError(
            f"{output} was made with {', and with '.join(found[:3])}{more}",
            hint="choose another -o, or throw its rows away with --restart",
        )


def _differences(old: Manifest, new: Manifest) -> Iterator[tuple[str, str, str]]:
    if old.model != new.model:
        yield "model", _model(old), _model(new)
    if _rows(old.input) != _rows(new.input):
        yield "input", _input(old.input), _input(new.input)
    for name in ("numerics", "layout", "template", "errors"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            yield name, _told(before), _told(now)
    if new.seed is not None and old.seed != new.seed:
        yield "seed", _told(old.seed), _told(new.seed)
    given, wanted = _plain(old.parameters), _plain(new.parameters)
    for name in dict.fromkeys([*given, *wanted]):
        before, now = given.get(name), wanted.get(name)
        if before != now:
            yield name, _told(before), _told(now)


def _rows(facts: InputFacts) -> tuple[object, ...]:
    """What must be equal for the rows to be the same, as far as it is known before reading."""
    if facts.stream:
        return facts.kind, True
    return facts.kind, False, facts.rows, facts.sha256


def _input(facts: InputFacts) -> str:
    if facts.stream:
        return f"a stream ({facts.kind})"
    rows = f"{facts.kind}, {facts.rows:,} rows, SHA-256 {facts.sha256[:12]}"
    return f"{facts.name or 'a file'} ({rows})"


def _model(manifest: Manifest) -> str:
    name = manifest.model_name
    return f"{name} ({manifest.model[:12]})" if name else manifest.model[:12]


def _told(value: object) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) and value.isprintable() else json.dumps(value)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "\u2026"


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from a file: tuples are lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(parameters)))
    return plain


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _manifest(content: dict[str, Any]) -> Manifest:
    """Make one of JSON whose digest is right: it is ours, but somebody may have meant mischief.

    Raises:
        TypeError: Something is missing, or of another kind.
    """
    facts = {name: content[name] for name in Manifest.__dataclass_fields__}
    manifest = replace(Manifest(**facts), input=InputFacts(**facts["input"]))
    rows = manifest.input
    counts = (rows.rows, manifest.seed or 0, manifest.complete or 0)
    if (
        any(not isinstance(count, int) or not 0 <= count < 1 << 53 for count in counts)
        or manifest.layout not in LAYOUTS
        or not isinstance(manifest.parameters, dict)
        or not _DIGEST.fullmatch(rows.sha256)
    ):
        raise TypeError("a value of a manifest is not what it must be")
    return manifest
