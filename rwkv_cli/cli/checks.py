"""What is wrong with the flags of `generate`, found before minutes are spent on reading and
generating; knows no model.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rwkv_cli.batch.values import MOST_LOGPROBS, MOST_SAMPLES
from rwkv_cli.cli.batchflags import BATCH_ONLY, told_apart
from rwkv_cli.errors import NotFoundError, StorageError, UsageError
from rwkv_cli.store.named import find_state
from rwkv_cli.text.stops import StopMatcher


def check_flags(flags: dict[str, Any]) -> None:
    """Refuse what cannot work.

    Raises:
        UsageError: Flags contradict each other, or one makes no sense.
        NotFoundError: A file, or the folder of one to be written, does not exist.
        StorageError: A file cannot be written.
    """
    if flags["mode"] == "raw" and flags["system"] is not None:
        raise UsageError("--raw has no place for a system text; leave out --raw or -s")
    _check_sources(flags)
    _check_samples(flags)
    StopMatcher([text.encode("utf-8", "surrogateescape") for text in flags["stop"]])
    if flags["state"] and not find_state(flags["state"]).exists():
        raise NotFoundError(f"no such file: {flags['state']}")
    for name in filter(None, (flags["save_state"], flags["output"])):
        _check_target(Path(name))
    if flags["save_state"] and not os.access(Path(flags["save_state"]).parent, os.W_OK):
        raise StorageError(f"cannot write {flags['save_state']}: permission denied")
    for name in flags["files"] if flags["output"] else ():
        if _same(Path(name), Path(flags["output"])):
            raise UsageError(f"{name} would be written while it is read")


def _check_sources(flags: dict[str, Any]) -> None:
    """Check that what there is to read is said once."""
    if flags["no_stdin"] and "-" in flags["files"]:
        raise UsageError("--no-stdin leaves stdin alone, and -f - reads it; give one of them")
    if flags["null"] and flags["samples"] == 1:
        example = "printf 'one\\0two\\0' | rwkv generate -i - --null"
        raise UsageError(
            "--null is for the prompts of -i and the answers of -k", hint=f"for example: {example}"
        )
    if told_apart(flags["template"])[0] is not None:
        raise UsageError(
            "a template with fields is for the rows of -i; for one prompt, --template names a "
            "chat format"
        )
    if flags["prompt_tokens"] is not None:
        if flags["words"] or flags["files"]:
            raise UsageError("--prompt-tokens takes the place of a prompt; give one of them")
        token_ids(flags["prompt_tokens"])


def _check_samples(flags: dict[str, Any]) -> None:
    """Check what is asked of answers beyond their text."""
    check_counts(flags)
    if flags["logprobs"] is not None and not flags["as_json"]:
        raise UsageError("--logprobs has no place in plain text", hint="add --json")
    if flags["samples"] > 1 and (flags["save_state"] or flags["echo"]):
        raise UsageError("-k gives several answers; --save-state and --echo are for one")
    for name, flag in BATCH_ONLY.items():
        if flags[name]:
            raise UsageError(f"{flag} is for the rows of -i")


def check_counts(flags: dict[str, Any]) -> None:
    """Check how many answers and figures are wanted.

    Raises:
        UsageError: Too few or too many.
    """
    if flags["samples"] is not None and not 1 <= flags["samples"] <= MOST_SAMPLES:
        raise UsageError(f"-k is {flags['samples']}; it must lie between 1 and {MOST_SAMPLES}")
    if flags["logprobs"] is not None and not 0 <= flags["logprobs"] <= MOST_LOGPROBS:
        raise UsageError(f"--logprobs is {flags['logprobs']}; at most {MOST_LOGPROBS} are told")


def token_ids(text: str) -> list[int]:
    """Read a list of token ids.

    Raises:
        UsageError: It is none.
    """
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise UsageError(
            f"--prompt-tokens is {text!r}; it must be numbers such as 1,2,3"
        ) from error


def _check_target(path: Path) -> None:
    """Check that a file can be made at a path."""
    if not path.parent.is_dir():
        raise NotFoundError(f"no such folder: {path.parent}")
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder")


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one regular file."""
    return one.is_file() and other.is_file() and one.samefile(other)
