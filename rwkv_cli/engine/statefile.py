"""State files: a valid safetensors file whose last 32 bytes are the SHA-256 of all before them.

The layout is specified in docs/state-file.md. Nothing in a file is used before the digest, the
header, the model and every shape have been compared; numbers that are not finite are neither
written nor read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from rwkv_cli.arch.spec import state_shapes
from rwkv_cli.checkpoints.safetensors import MAX_HEADER, read
from rwkv_cli.checkpoints.source import MemorySource
from rwkv_cli.engine.identity import Identity, described
from rwkv_cli.engine.state import Attachments, State, TokenLog
from rwkv_cli.errors import MismatchError, RefusedError
from rwkv_cli.files import read_regular, write_atomic
from rwkv_cli.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
DIGEST = "zz.sha256"
LONGEST = 1 << 53  # tokens that a state may have forgotten
LIMIT = 8 << 30  # no state of any known model comes near it

_DTYPES = {np.dtype("f4"): "F32", np.dtype("u4"): "U32", np.dtype("u1"): "U8"}
_READ: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
}


@dataclass(frozen=True, slots=True)
class StateInfo:
    """What a state file says of itself, read without the model it belongs to.

    Attributes:
        identity: The model it belongs to.
        position: Tokens read so far.
        writer: Program and version that wrote it.
        nbytes: Size of the file.
    """

    identity: Identity
    position: int
    writer: str
    nbytes: int


def write_state(path: Path, state: State) -> None:
    """Write a state durably, replacing the file as a whole.

    Raises:
        StorageError: The disk refused; the old file, if any, is untouched.
        RefusedError: The state holds numbers that are not finite.
    """
    write_atomic(path, state_parts(str(path), state), private=True)


def state_parts(where: str, state: State) -> Iterator[bytes]:
    """Give the bytes of a state file, after the last check.

    Args:
        where: What the file is called in messages.
        state: The state.

    Raises:
        RefusedError: The state holds numbers that are not finite, or belongs to no model.
    """
    if state.identity is None:
        raise RefusedError("this state belongs to no model, so it cannot be saved")
    tensors = _tensors(state)
    _check_finite(where, tensors)
    return _sealed(_container(tensors, _metadata(state)))


def load_state(path: Path, identity: Identity, shapes: Mapping[str, tuple[int, ...]]) -> State:
    """Read a state of a given model.

    Args:
        path: The file.
        identity: The model that will continue it.
        shapes: Name to shape of its arrays.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: The file is damaged.
        MismatchError: It belongs to another model, or its format is newer.
    """
    tensors, notes = _open(path)
    theirs = _identity(path, notes)
    _compare(path, theirs, identity)
    vocab = _vocabulary(path, identity.arch)
    arrays = {n: _array(path, tensors, f"state.{n}", shape) for n, shape in shapes.items()}
    state = State(arrays)
    state.identity = identity
    if "logits" in tensors:
        state.logits = _array(path, tensors, "logits", (vocab,))
    state.tokens = _token_log(path, tensors, notes, vocab)
    if state.position and state.logits is None:
        raise RefusedError(f"{path}: lacks logits")
    state.attachments = _attachments(path, tensors, notes)
    if (state.attachments.penalty_ids >= vocab).any():
        raise RefusedError(f"{path}: it counts tokens that its model does not have")
    _check_finite(str(path), _tensors(state))
    return state


def _token_log(path: Path, tensors: dict[str, Any], notes: dict[str, str], vocab: int) -> TokenLog:
    tokens = _array(path, tensors, "tokens", None, "U32")
    forgotten = _number(notes.get("forgotten", "0"))
    if forgotten is None or forgotten > LONGEST or (tokens >= vocab).any():
        raise RefusedError(f"{path}: its tokens make no sense")
    if str(forgotten + len(tokens)) != notes.get("pos"):
        raise RefusedError(f"{path}: its tokens contradict its header")
    return TokenLog(tokens.tolist(), forgotten)


def verify_state(path: Path) -> State:
    """Read a state whole, of whatever model it is.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: The file is damaged.
        MismatchError: Its format is newer than this program.
    """
    _, notes = _open(path)
    identity = _identity(path, notes)
    try:
        shapes = state_shapes(*described(identity.arch))
    except ValueError as error:
        raise RefusedError(
            f"{path}: belongs to a model of a kind that is not known here ({identity.arch[:99]})"
        ) from error
    return load_state(path, identity, shapes)


def inspect_state(path: Path) -> StateInfo:
    """Read what a state file says of itself.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: The file is damaged.
        MismatchError: Its format is newer than this program.
    """
    _, notes = _open(path)
    position = _number(notes.get("pos", ""))
    if position is None:
        raise RefusedError(f"{path}: its header lacks the position")
    writer = notes.get("rwkv.writer", "unknown")
    return StateInfo(_identity(path, notes), position, writer, path.stat().st_size)


def read_attachments(path: Path) -> Attachments:
    """Read what travels with a state, without the model it belongs to; raises as `inspect_state`
    does.
    """
    tensors, notes = _open(path)
    return _attachments(path, tensors, notes)


def _tensors(state: State) -> dict[str, NDArray[Any]]:
    """Lay out everything a file holds, in file order; the widest items come first, so all stay
    aligned.
    """
    extra = state.attachments
    tensors: dict[str, NDArray[Any]] = {f"state.{n}": a for n, a in state.arrays.items()}
    if state.logits is not None:
        tensors["logits"] = state.logits
    tensors["tokens"] = state.tokens.to_numpy()
    tensors["penalty.ids"] = extra.penalty_ids
    tensors["penalty.counts"] = extra.penalty_counts
    tensors["transcript"] = np.frombuffer(extra.transcript.encode(), dtype=np.uint8)
    tensors["tail"] = np.frombuffer(extra.tail, dtype=np.uint8)
    return tensors


def _metadata(state: State) -> dict[str, str]:
    assert state.identity is not None
    return {
        "rwkv.format": str(FORMAT),
        "rwkv.writer": f"rwkv {__version__}",
        "model.arch": state.identity.arch,
        "model.weights": state.identity.weights,
        "model.numerics": state.identity.numerics,
        "tokenizer": state.identity.tokenizer,
        "pos": str(state.position),
        "forgotten": str(state.tokens.forgotten),
        "sampler": state.attachments.sampler,
    }


def _container(tensors: Mapping[str, NDArray[Any]], notes: Mapping[str, str]) -> Iterator[bytes]:
    """Give the parts of the file, all but the digest."""
    header: dict[str, Any] = {"__metadata__": dict(notes)}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        dtype = _DTYPES[array.dtype]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    header[DIGEST] = {"dtype": "U8", "shape": [32], "data_offsets": [offset, offset + 32]}
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for array in tensors.values():
        yield np.ascontiguousarray(array).tobytes()


def _sealed(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Append the digest of all parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
        yield part
    yield digest.digest()


def _open(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a file into memory, prove it whole, then parse it: raw tensors by name, and metadata."""
    content = read_regular(path, LIMIT, lambda file, size: _look(path, file, size))
    body, seal = memoryview(content)[:-32], bytes(content[-32:])
    if len(content) < 8 + 2 + 32 or hashlib.sha256(body).digest() != seal:
        raise RefusedError(f"{path}: is not a whole state file: its checksum does not match")
    contents = read(MemorySource(path, content))
    notes = contents.metadata
    version = _number(notes.get("rwkv.format", ""))
    if version is None:
        raise RefusedError(f"{path}: is not a state file: its header names no format")
    if version > FORMAT:
        raise MismatchError(
            f"{path}: has state format {version}, this program reads up to {FORMAT}",
            hint="upgrade rwkv to continue from it",
        )
    return {tensor.name: tensor for tensor in contents.tensors}, notes


def _look(path: Path, file: BinaryIO, size: int) -> None:
    """Refuse what cannot be a state before it is read whole: somebody may have named their weights,
    and those take long.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= MAX_HEADER:
        raise RefusedError(f"{path}: is not a state file")
    if length > size - 8:
        raise RefusedError(f"{path}: is not a whole state file: it ends inside its header")
    if DIGEST.encode() not in file.read(length):
        raise RefusedError(f"{path}: is not a state file: its header names no checksum")


def _number(text: str) -> int | None:
    """Read a count from a header; None when it is none, or longer than any count."""
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _identity(path: Path, notes: Mapping[str, str]) -> Identity:
    keys = ("model.arch", "model.weights", "tokenizer", "model.numerics")
    missing = [key for key in keys if key not in notes]
    if missing:
        raise RefusedError(f"{path}: its header lacks {missing[0]}")
    return Identity(*(notes[key] for key in keys))


def _vocabulary(path: Path, arch: str) -> int:
    """Read the size of the vocabulary out of a model's description."""
    size = _number(arch.partition(";V=")[2].partition(";")[0])
    if size is None:
        raise RefusedError(f"{path}: its header names no size of a vocabulary")
    return size


def _compare(path: Path, theirs: Identity, ours: Identity) -> None:
    """Refuse a state of another model, naming both."""
    for what, a, b in (
        ("an RWKV of other sizes", theirs.arch, ours.arch),
        ("other weights", theirs.weights, ours.weights),
        ("another tokenizer", theirs.tokenizer, ours.tokenizer),
    ):
        if a != b:
            raise MismatchError(
                f"{path}: this state was made with {what} ({short(a)}, not {short(b)})",
                hint="continue it with the model that made it: -m MODEL",
            )


def short(digest: str) -> str:
    """Shorten a fingerprint for people; leave a description as it is."""
    head, _, tail = digest.rpartition(":")
    return tail[:12] if head or len(digest) == 64 else digest


def _array(
    path: Path,
    tensors: Mapping[str, Any],
    name: str,
    shape: tuple[int, ...] | None,
    dtype: str = "F32",
) -> NDArray[Any]:
    """Copy one tensor out of a file, its type and shape being as expected; without a shape it is a
    list.
    """
    raw = tensors.get(name)
    if raw is None:
        raise RefusedError(f"{path}: lacks {name}")
    fits = len(raw.shape) == 1 if shape is None else raw.shape == shape
    if raw.dtype != dtype or not fits:
        raise RefusedError(f"{path}: {name} has type {raw.dtype} and shape {list(raw.shape)}")
    array: NDArray[Any] = np.frombuffer(raw.data, dtype=_READ[dtype])
    return array.reshape(raw.shape).copy()


def _attachments(path: Path, tensors: Mapping[str, Any], notes: Mapping[str, str]) -> Attachments:
    ids = _array(path, tensors, "penalty.ids", None, "U32")
    counts = _array(path, tensors, "penalty.counts", ids.shape)
    if len(np.unique(ids)) != len(ids):
        raise RefusedError(f"{path}: it counts a token twice")
    text = _array(path, tensors, "transcript", None, "U8").tobytes()
    try:
        transcript = text.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(f"{path}: its transcript is not UTF-8") from error
    tail = _array(path, tensors, "tail", None, "U8").tobytes()
    return Attachments(notes.get("sampler", ""), ids, counts, transcript, tail)


def _check_finite(where: str, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Refuse numbers that would poison everything after them, naming the layer."""
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            first = int(np.argwhere(~np.isfinite(array))[0][0])
            place = f"{name}, layer {first}" if name.startswith("state.") else name
            raise RefusedError(f"{where}: the state is not finite ({place})")
