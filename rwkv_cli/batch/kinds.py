"""What kind of rows an input holds, told by how it begins; knows no file."""

from __future__ import annotations

from collections.abc import Mapping

from rwkv_cli.batch.jsonline import parse_object
from rwkv_cli.errors import RefusedError, UsageError

JSONL, OPENAI, CSV, TSV, LINES = KINDS = ("jsonl", "openai", "csv", "tsv", "lines")
LOOK = 1 << 20  # bytes at the beginning that may be looked at

_SUFFIXES = {
    ".jsonl": JSONL, ".ndjson": JSONL, ".json": JSONL, ".csv": CSV, ".tsv": TSV, ".tab": TSV,
    ".txt": LINES, ".text": LINES,
}  # fmt: skip
_FOREIGN = {
    b"\x1f\x8b\x08": ("compressed", "gzip -dc {name} | rwkv generate -i -"),
    b"\x28\xb5\x2f\xfd": ("compressed", "zstd -dc {name} | rwkv generate -i -"),
    b"PK\x03\x04": ("an archive or a spreadsheet", "save it as CSV, or unpack it"),
    b"PAR1": ("a Parquet file", "write its rows as JSON, one object a line"),
}


def refuse_foreign(head: bytes | bytearray, name: str) -> None:
    """Refuse what is no text at all.

    Args:
        head: The first four bytes, or more.
        name: Of the input.

    Raises:
        RefusedError: It holds no rows that can be read.
    """
    for magic, (what, hint) in _FOREIGN.items():
        if head.startswith(magic):
            raise RefusedError(f"{name} is {what}", hint=hint.format(name=name))
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") and b"\0" in head[2:4]:
        raise RefusedError(
            f"{name} is UTF-16 text; UTF-8 is needed", hint=f"iconv -f UTF-16 -t UTF-8 {name}"
        )


def kind_of(head: bytes, suffix: str, *, ended: bool) -> str | None:
    """Tell the kind by the first line that is whole.

    A line that is broken decides nothing: the file's suffix does, or the lines after it.

    Args:
        head: How the input begins, without a byte order mark; nothing beyond `LOOK` is looked at.
        suffix: Of the file's name, such as ".csv"; empty when it has none.
        ended: Whether there is no more.

    Returns:
        One of `KINDS`; None when more has to be seen.

    Raises:
        UsageError: It is JSON, but not one object a line.
    """
    likely = _SUFFIXES.get(suffix.lower())
    if likely in (CSV, TSV):
        return likely
    strict = likely is None or suffix.lower() == ".json"
    lines = head[:LOOK].split(b"\n")
    if not ended or len(head) > LOOK:
        lines.pop()
    lines = list(filter(None, map(bytes.strip, lines)))
    for line in lines:
        if line[:1] in b"{[":
            found = parse_object(line)
            if isinstance(found, dict):
                return OPENAI if is_openai(found) else JSONL
            if strict and (line in (b"[", b"{", b"[{") or line.startswith((b'[{"', b'[ {"'))):
                raise UsageError(
                    "the input is JSON, but not one object a line",
                    hint="jq -c '.[]' FILE makes lines of a list, jq -c . FILE of an object",
                )
            likely = likely or (JSONL if line[:1] == b"{" else None)
        if likely != JSONL and _is_text(line):
            return likely or LINES
    if not ended and len(head) < LOOK:
        return None
    if not lines and likely in (None, JSONL) and head.lstrip()[:1] == b"{":  # one long line so far
        return OPENAI if b'"custom_id"' in head and b'"body"' in head else JSONL
    return likely or LINES


def is_openai(fields: Mapping[str, object]) -> bool:
    """Whether a row is a request as batch files for OpenAI's interface hold them."""
    return "custom_id" in fields and isinstance(fields.get("body"), dict)


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
