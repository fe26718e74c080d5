"""What the flags of `rwkv bench` ask for, checked before anything is measured."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rwkv_cli.bench.plan import Plan
from rwkv_cli.bench.record import read_record
from rwkv_cli.cli.options import whole_number
from rwkv_cli.cli.settings import Settings, check_range
from rwkv_cli.errors import NotFoundError, StorageError, UsageError
from rwkv_cli.files import read_regular
from rwkv_cli.render.plot import FORMATS as PICTURES
from rwkv_cli.render.plot import check_plotting

QUICK = "-p 128 -n 32 -d 0,512 -r 2"
_QUICK = {"prefill": "128", "decode": "32", "depth": "0,512", "repeat": "2"}
_FORMATS = ("table", "md", "json", "csv")
_BATCH = 64  # sequences an engine takes at once
_LONGEST = 1 << 24  # tokens of a test
_LARGEST = 1 << 30  # bytes of a text to read
_MOST = 64  # numbers in a list


@dataclass(frozen=True, slots=True)
class Choices:
    """What was asked for, apart from the model and where it runs.

    Attributes:
        plan: What to measure.
        dtypes: Precisions; none is that of the settings.
        engines: "native", "torch"; none is that of the settings.
        threads: Numbers of threads; none is that of the settings.
        form: "table", "md", "json" or "csv".
        output: File to write to instead of stdout.
        earlier: A record to compare with.
        plot: A picture to draw.
        file: Name of the text that is read; it stands in the plan already.
    """

    plan: Plan
    dtypes: tuple[str, ...]
    engines: tuple[str, ...]
    threads: tuple[int, ...]
    form: str
    output: str | None
    earlier: dict[str, Any] | None
    plot: Path | None
    file: str | None

    def words(self) -> list[str]:
        """Write the plan as flags."""
        plan = self.plan
        lists = {"-p": plan.prompts, "-n": plan.lengths, "-d": plan.depths, "-b": plan.batches}
        words = [w for flag, numbers in lists.items() for w in (flag, ",".join(map(str, numbers)))]
        words += ["-r", str(plan.repeats)]
        words += ["-f", self.file] if self.file else []
        return words + (["--state", str(plan.state)] if plan.state else [])


def choices(flags: Mapping[str, Any]) -> Choices:
    """Read the flags.

    Raises:
        UsageError: A value does not fit.
        NotFoundError: A file, or the folder of one to be written, does not exist.
        StorageError: A file cannot be written.
        RefusedError: The record to compare with is none.
    """
    plan = _plan(flags)
    for name in filter(None, (flags["output"], flags["plot"])):
        _check_target(Path(name))
    return Choices(
        plan,
        _words(flags["dtype"], "dtype"),
        _words(flags["engine"], "engine"),
        _numbers(flags["threads"], "threads", 1, 1024),
        _form(flags),
        flags["output"],
        read_record(Path(flags["compare"])) if flags["compare"] else None,
        _picture(flags["plot"]),
        flags["file"],
    )


def engines_of(settings: Settings, asked: Choices) -> list[Settings]:
    """Give the settings of everything to be measured: engines times precisions times threads.

    Raises:
        UsageError: A precision or an engine is unknown, or two do not go together.
    """
    found = [
        replace(settings, engine=engine, dtype=dtype, threads=threads)
        for engine in asked.engines or (settings.engine,)
        for dtype in asked.dtypes or (settings.dtype,)
        for threads in asked.threads or (settings.threads,)
    ]
    for one in found:
        one.placement()
        check_range("threads", one.threads)
    return [_said_once(one) for one in found]


def _said_once(settings: Settings) -> Settings:
    """Leave out a strategy that a device or a precision overrules, so that the command line of a
    process that measures does not contradict itself.
    """
    if not (settings.strategy and (settings.device or settings.dtype)):
        return settings
    return replace(settings, strategy=None, device=settings.placement().device)


def _plan(flags: Mapping[str, Any]) -> Plan:
    given = {key: flags[key] for key in _QUICK if flags[key] is not None}
    wanted = {**(_QUICK if flags["quick"] else {}), **given}
    usual = Plan()
    depths = _numbers(wanted.get("depth"), "depth", 0, _LONGEST)
    if flags["state"] and not Path(flags["state"]).exists():
        raise NotFoundError(f"no such file: {flags['state']}")
    repeats = _numbers(wanted.get("repeat"), "repeat", 1, 10_000)
    if len(repeats) > 1:
        raise UsageError(f"repeat is {wanted['repeat']!r}; it must be one number")
    return Plan(
        _numbers(wanted.get("prefill"), "prefill", 1, _LONGEST) or usual.prompts,
        _numbers(wanted.get("decode"), "decode", 1, _LONGEST) or usual.lengths,
        depths or (() if flags["state"] else usual.depths),
        _numbers(flags["batch"], "batch", 1, _BATCH) or usual.batches,
        repeats[0] if repeats else usual.repeats,
        Path(flags["state"]) if flags["state"] else None,
        _text(flags["file"]) if flags["file"] else b"",
    )


def _text(name: str) -> bytes:
    text = bytes(read_regular(Path(name), _LARGEST))
    if not text:
        raise UsageError(f"{name}: is empty, so there is nothing to read")
    return text


def _words(text: str | None, flag: str) -> tuple[str, ...]:
    """Read a list of words, each once."""
    if text is None:
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(words) or len(words) > _MOST:
        raise UsageError(f"{flag} is {text!r}; it must be a list such as a,b of at most {_MOST}")
    return tuple(dict.fromkeys(words))


def _numbers(text: str | None, flag: str, low: int, high: int) -> tuple[int, ...]:
    """Read a list of numbers, each once.

    Raises:
        UsageError: It is none, or one of them is out of range.
    """
    try:
        numbers = tuple(dict.fromkeys(map(whole_number, _words(text, flag))))
    except ValueError as error:
        raise UsageError(f"{flag} is {text!r}; it must be numbers such as 128 or 1,4k") from error
    for number in numbers:
        if not low <= number <= high:
            raise UsageError(f"{flag} is {number}; it must lie between {low} and {high}")
    return numbers


def _form(flags: Mapping[str, Any]) -> str:
    """Choose the format: what a flag says, or what the name of the output does."""
    form: str | None = "json" if flags["as_json"] else flags["form"]
    if flags["as_json"] and flags["form"] not in (None, "json"):
        raise UsageError(f"--json and --format {flags['form']} contradict each other")
    if form is None:
        suffix = Path(flags["output"] or "").suffix[1:].lower()
        return suffix if suffix in _FORMATS else "table"
    if form not in _FORMATS:
        close = difflib.get_close_matches(form, _FORMATS, n=1)
        hint = f"did you mean {close[0]}?" if close else None
        raise UsageError(f"format is {form!r}; it must be table, md, json or csv", hint=hint)
    return form


def _picture(name: str | None) -> Path | None:
    if name is None:
        return None
    if Path(name).suffix[1:].lower() not in PICTURES:
        raise UsageError(f"plot is {name!r}; its name must end in .png or .svg")
    check_plotting()
    return Path(name)


def _check_target(path: Path) -> None:
    """Check that a file can be made at a path."""
    if not path.parent.is_dir():
        raise NotFoundError(f"no such folder: {path.parent}")
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder")
