"""State files that must not be believed: each is put at a path, beside a model it is given to."""

from __future__ import annotations

import os
import socket
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import rwkv_cli
from oracle.statefiles import Header, reseal, with_header, with_note, with_tensor
from oracle.weights import Shape, random_model

SHAPE = Shape(layers=1, heads=2, size=16, ffn=32, vocab=256, rank=4)  # the model of the tests
_HUGE = 3 << 30

Make = Callable[[Path, bytes], object]


@dataclass(frozen=True)
class Wrong:
    """One of them.

    Attributes:
        code: The status with which the command ends that is given it.
        says: A part of the sentence about it, beside its name.
        make: Puts it at a path, given a sound file's content.
        alone: The status where no model is there to compare it with; None is the same.
    """

    code: int
    says: str
    make: Make
    alone: int | None = None


def _changed(change: Callable[[bytes], bytes]) -> Make:
    return lambda path, sound: path.write_bytes(change(sound))


def _text(content: bytes) -> Make:
    return lambda path, sound: path.write_bytes(content)


# Of another model


def _of(version: str = "v7", shape: Shape = SHAPE, seed: int = 0) -> Make:
    """Let another model read something."""

    def make(path: Path, sound: bytes) -> None:
        weights = path.with_name("other.safetensors")
        save_file(random_model(version, shape, seed), weights)
        model = rwkv_cli.load(weights, tokenizer="bytes")
        model.prefill(list(b"hello"))[1].save(path)
        weights.unlink()

    return make


_OF_OTHERS = {
    "other weights of the same sizes": Wrong(4, "other weights", _of(seed=1), alone=0),
    "more layers": Wrong(4, "other sizes", _of(shape=replace(SHAPE, layers=2)), alone=0),
    "a wider model": Wrong(4, "other sizes", _of(shape=replace(SHAPE, heads=4)), alone=0),
    "another vocabulary": Wrong(4, "other sizes", _of(shape=replace(SHAPE, vocab=300)), alone=0),
    "another version of RWKV": Wrong(4, "other sizes", _of("v6"), alone=0),
    "another tokenizer": Wrong(
        4, "tokenizer", _changed(lambda c: with_note(c, "tokenizer", "0" * 64)), alone=0
    ),
    "a version that nobody knows": Wrong(
        4, "v99", _changed(lambda c: with_note(c, "model.arch", "v99;L=1;V=256")), alone=6
    ),
    "a newer format": Wrong(4, "format 2", _changed(lambda c: with_note(c, "rwkv.format", "2"))),
}


# Wrong inside, under a checksum that is right


def _number(name: str, shape: tuple[int, ...], value: float) -> Make:
    numbers = np.zeros(shape, np.float32)
    numbers.reshape(-1)[-1] = value
    return _changed(lambda c: with_tensor(c, name, "F32", list(shape), numbers.tobytes()))


def _tokens(*ids: int) -> Make:
    data = np.array(ids, dtype="<u4").tobytes()
    return _changed(lambda c: with_tensor(c, "tokens", "U32", [len(ids)], data))


def _penalty(token: int, count: float) -> Make:
    ids, counts = np.array([token], "<u4").tobytes(), np.array([count], "<f4").tobytes()

    def change(content: bytes) -> bytes:
        content = with_tensor(content, "penalty.ids", "U32", [1], ids)
        return with_tensor(content, "penalty.counts", "F32", [1], counts)

    return _changed(change)


def _wkv(dtype: str, *shape: int) -> Make:
    data = bytes(int(np.prod(shape)) * {"F32": 4, "F16": 2}[dtype])
    return _changed(lambda c: with_tensor(c, "state.wkv", dtype, list(shape), data))


def _without(name: str) -> Make:
    def rename(header: Header) -> None:
        header["other"] = header.pop(name)

    return _changed(lambda c: with_header(c, rename))


def _twice(content: bytes) -> bytes:
    """Name one tensor twice, so that readers which take the first or the last see two files."""
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length].rstrip()
    start = text.index(b'"tokens":')
    entry = text[start : text.index(b"}", start) + 1]
    text = text[:start] + entry + b"," + text[start:]
    return reseal(len(text).to_bytes(8, "little") + text + content[8 + length : -32])


def _length(number: int) -> Make:
    return _changed(lambda c: reseal(number.to_bytes(8, "little") + c[8:-32]))


_INSIDE = {
    "a number that is none": Wrong(6, "not finite", _number("state.wkv", (1, 2, 16, 16), np.nan)),
    "a number without end": Wrong(6, "not finite", _number("state.att_shift", (1, 32), np.inf)),
    "scores without end": Wrong(6, "not finite", _number("logits", (256,), -np.inf)),
    "a format that is no number": Wrong(
        6, "names no format", _changed(lambda c: with_note(c, "rwkv.format", "one"))
    ),
    "no format": Wrong(
        6,
        "names no format",
        _changed(lambda c: with_header(c, lambda h: h["__metadata__"].pop("rwkv.format"))),
    ),
    "the same name twice": Wrong(6, "twice", _changed(_twice)),
    "a header longer than the file": Wrong(6, "header", _length(100_000)),
    "a header of 2^63 bytes": Wrong(6, "state file", _length(1 << 63)),
    "tokens that do not exist": Wrong(6, "tokens", _tokens(*range(252, 257))),
    "a penalty of a token that does not exist": Wrong(6, "tokens", _penalty(256, 1.0)),
    "a penalty that is no number": Wrong(6, "not finite", _penalty(5, np.nan)),
    "a position that the tokens do not have": Wrong(
        6, "contradict", _changed(lambda c: with_note(c, "pos", "6"))
    ),
    "a position that counts tokens it never had": Wrong(
        6, "contradict", _changed(lambda c: with_note(c, "forgotten", "7"))
    ),
    "a number of forgotten tokens that is none": Wrong(
        6, "make no sense", _changed(lambda c: with_note(c, "forgotten", "-1"))
    ),
    "a part in another order of axes": Wrong(6, "shape", _wkv("F32", 1, 16, 16, 2)),
    "a part of too many layers": Wrong(6, "shape", _wkv("F32", 2, 2, 16, 16)),
    "a part in half precision": Wrong(6, "type", _wkv("F16", 1, 2, 16, 16)),
    "a part missing": Wrong(6, "lacks state.wkv", _without("state.wkv")),
    "no scores": Wrong(6, "lacks logits", _without("logits")),
}


# Damaged, or no state at all


def _sparse(path: Path, sound: bytes) -> None:
    """Make a file like a checkpoint of some size, which is not to be read whole to be refused."""
    text = b'{"emb.weight":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (
        _HUGE >> 2,
        _HUGE,
    )
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + _HUGE)


def _zip(path: Path, sound: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}q\x00.")


_DAMAGED = {
    "another checksum": Wrong(6, "checksum", _changed(lambda c: c[:-1] + bytes([c[-1] ^ 1]))),
    "a bit that flipped": Wrong(
        6, "checksum", _changed(lambda c: c[:-500] + bytes([c[-500] ^ 4]) + c[-499:])
    ),
    "only a beginning": Wrong(6, "checksum", _changed(lambda c: c[: len(c) // 2])),
    "one byte more": Wrong(6, "checksum", _changed(lambda c: c + b"\0")),
    "nothing in it": Wrong(6, "state file", _text(b"")),
    "only zeros": Wrong(6, "state file", _changed(lambda c: bytes(len(c)))),
    "a text": Wrong(6, "state file", _text(b"These are my notes.\n" * 50)),
    "a page of the web": Wrong(6, "state file", _text(b"<!DOCTYPE html><title>404</title>" * 9)),
    "weights in a zip": Wrong(6, "state file", _zip),
    "weights of 3 GB": Wrong(6, "state file", _sparse),
}


# No file


def _socket(path: Path, sound: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as open_socket:
        here = Path.cwd()
        os.chdir(path.parent)  # names of sockets must be short
        try:
            open_socket.bind(path.name)
        finally:
            os.chdir(here)


def _link(target: str) -> Make:
    return lambda path, sound: path.symlink_to(target)


_NO_FILES = {
    "a pipe with a name": Wrong(6, "regular", lambda path, sound: os.mkfifo(path)),
    "a folder": Wrong(6, "folder", lambda path, sound: path.mkdir()),
    "a socket": Wrong(6, "regular", _socket),
    "a link to a device without end": Wrong(6, "regular", _link("/dev/zero")),
}

NOWHERE = {
    "no file": Wrong(3, "no such file", lambda path, sound: None),
    "a link to nothing": Wrong(3, "no such file", _link("nothing")),
    "a link to itself": Wrong(3, "no such file", _link("a.rwkvstate")),
}

WRONG: dict[str, Wrong] = {**_OF_OTHERS, **_INSIDE, **_DAMAGED, **_NO_FILES}
