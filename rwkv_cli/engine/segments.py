"""Strategy strings: which layers of a model go to which device, in which precision.

The grammar and its arithmetic are those of the reference package (`rwkv` 0.8, model.py), for every
version of RWKV: `device dtype[i8|i4] [*N[+]] -> ...`. A model of n layers has n + 1 to share out;
the last is the final norm with the head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rwkv_cli.engine.strategy import DEVICES
from rwkv_cli.errors import PointedError

FLOATS = ("fp32", "bf16", "fp16")

_ARROW = "->"
_WORD = re.compile(r"\S+")
_DTYPE = re.compile(r"(?P<floats>fp32|bf16|fp16)(?:i(?P<bits>8|4))?")
_COUNT = re.compile(r"\*(?P<count>[0-9]{1,9})(?P<streams>\+?)")
_HINT = 'for example "cuda fp16", "cuda fp16i8 *20 -> cpu fp32" or "cuda fp16 *0+"'


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a strategy string.

    Attributes:
        device: A torch device, such as "cpu" or "cuda:0".
        floats: "fp32", "bf16" or "fp16": precision of the matrices, and what quantized ones are
            multiplied in.
        bits: 8 or 4 where the large matrices are quantized; None where they are not.
        count: Layers that stay on the device; None is a share of what is left.
        streams: Whether all layers that no segment keeps are brought to this device one after the
            other, for every pass.
    """

    device: str
    floats: str
    bits: int | None = None
    count: int | None = None
    streams: bool = False

    @property
    def dtype(self) -> str:
        """The precision as the flags name it: "int8", "int4" or that of the floats."""
        return f"int{self.bits}" if self.bits else self.floats

    def __str__(self) -> str:
        """As it is written."""
        bits = f"i{self.bits}" if self.bits else ""
        count = "" if self.count is None else f" *{self.count}{'+' * self.streams}"
        return f"{self.device} {self.floats}{bits}{count}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer goes.

    Attributes:
        device: A torch device.
        floats: As of the segment.
        bits: As of the segment.
        streamed: Whether its large matrices are brought to the device for every pass.
    """

    device: str
    floats: str
    bits: int | None = None
    streamed: bool = False


def parse_segments(text: str) -> tuple[Segment, ...]:
    """Read a strategy string.

    Raises:
        PointedError: It is malformed; the error knows where.
    """
    found, start, streaming = [], 0, False
    for part in text.split(_ARROW):
        words = [(w[0], start + w.start(), start + w.end()) for w in _WORD.finditer(part)]
        edge = start + len(part)
        if not words:
            place = (start, edge) if part else (max(0, edge - 1), edge or 1)
            raise PointedError("the strategy has an empty segment", text, place, hint=_HINT)
        segment = _segment(text, words)
        if segment.streams and streaming:
            raise PointedError(
                "the strategy streams in two segments; only one can take what the others leave",
                text,
                words[2][1:],
                hint="leave out one +",
            )
        streaming |= segment.streams
        found.append(segment)
        start = edge + len(_ARROW)
    return tuple(found)


def _segment(text: str, words: list[tuple[str, int, int]]) -> Segment:
    """Read one segment.

    Raises:
        PointedError: It is malformed.
    """
    device, *rest = words
    if not re.fullmatch(DEVICES, device[0]):
        raise PointedError(_why_no_device(device[0]), text, device[1:], hint=_HINT)
    if not rest:
        why = f"the strategy names no precision for {device[0]}: fp32, bf16 or fp16"
        raise PointedError(why, text, device[1:], hint=_HINT)
    kind = _DTYPE.fullmatch(rest[0][0])
    if not kind:
        raise PointedError(_why_no_dtype(rest[0][0]), text, rest[0][1:], hint=_HINT)
    bits = int(kind["bits"]) if kind["bits"] else None
    segment = Segment(device[0], kind["floats"], bits)
    if len(rest) == 1:
        return segment
    number = _COUNT.fullmatch(rest[1][0])
    if not number:
        why = "the strategy counts layers as *N, and those to be kept while others stream as *N+"
        raise PointedError(why, text, rest[1][1:], hint=_HINT)
    if len(rest) > 2:
        why = "the strategy has more words than a device, a precision and *N between two arrows"
        raise PointedError(why, text, rest[2][1:], hint=_HINT)
    return replace(segment, count=int(number["count"]), streams=bool(number["streams"]))


def _why_no_device(word: str) -> str:
    if word == "dml":
        return "the strategy names dml, and DirectML is not supported"
    if "->" in word or re.match(DEVICES, word):
        return f"the strategy's device is {word!r}; a space must follow cpu, cuda, cuda:1, mps, xpu"
    return f"the strategy's device is {word!r}; it must be cpu, cuda, cuda:1, mps or xpu"


def _why_no_dtype(word: str) -> str:
    if re.fullmatch(r"(fp32|bf16|fp16)i3", word):
        return "the strategy asks for 3 bits, which nothing here has; i8 and i4 are 8 and 4"
    return f"the strategy's precision is {word!r}; it must be fp32, bf16 or fp16, i8 or i4 after it"


def allocate(segments: Sequence[Segment], total: int) -> list[tuple[int, int]]:
    """Share layers out.

    Args:
        segments: As they were written.
        total: How many layers there are, the head being the last.

    Returns:
        For each segment the layers that stay on its device, and those that are streamed to it.
    """
    kept, taken, free, streaming = [0] * len(segments), 0, [], None
    for number, segment in enumerate(segments):
        if segment.count is None:
            free.append(number)
            continue
        kept[number] = min(segment.count, total - taken)
        taken += kept[number]
        if segment.streams:
            streaming = number
        if taken == total:  # what follows gets nothing
            break
    rest = total - taken
    if streaming is None:
        for position, number in enumerate(free):
            kept[number] = rest // (len(free) - position)
            rest -= kept[number]
        kept[-1] += rest
    return [(count, rest if i == streaming else 0) for i, count in enumerate(kept)]


def settle(segments: Sequence[Segment], total: int) -> tuple[Segment, ...]:
    """Give the same strategy with every number written out, segments without layers left out, and
    neighbours that are alike joined.
    """
    found: list[Segment] = []
    shares = allocate(segments, total)
    end = 0
    for segment, (kept, streamed) in zip(segments, shares, strict=True):
        end += kept + streamed
        if not kept + streamed:
            continue
        # The head is never streamed, and to a CPU there is nothing to bring.
        moving = 0 if segment.device == "cpu" else streamed - (streamed > 0 and end == total)
        count = kept if moving else kept + streamed
        one = replace(segment, count=count, streams=moving > 0)
        before = found[-1] if found else None
        if before and not before.streams and _alike(before, one):
            one = replace(one, count=(before.count or 0) + count)
            found.pop()
        found.append(one)
    return tuple(found)


def in_parts(segments: Sequence[Segment]) -> bool:
    """Tell whether settled segments are more than a device and a precision for all layers."""
    return len(segments) > 1 or segments[0].streams


def _alike(one: Segment, other: Segment) -> bool:
    return (one.device, one.floats, one.bits) == (other.device, other.floats, other.bits)


def places(segments: Sequence[Segment], total: int) -> list[Place]:
    """Give the place of each layer, the head being the last; the head itself is never streamed."""
    found = []
    for segment, (kept, streamed) in zip(segments, allocate(segments, total), strict=True):
        place = Place(segment.device, segment.floats, segment.bits)
        found += [place] * kept
        found += [replace(place, streamed=segment.device != "cpu")] * streamed
    found[-1] = replace(found[-1], streamed=False)
    return found


def written(segments: Sequence[Segment]) -> str:
    """Write a strategy as `parse_segments` reads it."""
    return f" {_ARROW} ".join(map(str, segments))
