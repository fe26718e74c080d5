"""What a state is bound to: the version and sizes, the weights, the tokenizer, the arithmetic."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rwkv_cli.arch.spec import Arch, Dims, get_arch, known_archs
from rwkv_cli.checkpoints.tensors import RawTensor

_SAMPLES = 8  # places of a tensor that the fingerprint reads
_SAMPLE_BYTES = 4096
_SIZE = r"[A-Z][a-z]?=[0-9]{1,15}"


@dataclass(frozen=True, slots=True)
class Identity:
    """A model as a state remembers it.

    Attributes:
        arch: Version and sizes in one line, such as "v7;A=768;C=768;...".
        weights: Fingerprint of the weights.
        tokenizer: Digest of the vocabulary.
        numerics: Name of the arithmetic; a state continues bit for bit only where it is equal.
    """

    arch: str
    weights: str
    tokenizer: str
    numerics: str


def describe(arch: Arch, dims: Dims) -> str:
    """Write version and sizes in one canonical line."""
    sizes = ";".join(f"{letter}={dims.letters[letter]}" for letter in sorted(dims.letters))
    return f"{arch.name};L={dims.layers};{sizes}"


def described(text: str) -> tuple[Arch, Dims]:
    """Read version and sizes from the line that `describe` writes.

    Raises:
        ValueError: It is no such line, or of a version that is not known here.
    """
    name, *parts = text.split(";")
    if name not in known_archs() or not all(re.fullmatch(_SIZE, part) for part in parts):
        raise ValueError(text)
    letters = {letter: int(number) for letter, number in (part.split("=") for part in parts)}
    arch, layers = get_arch(name), letters.pop("L", 0)
    needed = {"C", "V", *" ".join(arch.state.values()).split()}
    if not needed <= set(letters):
        raise ValueError(text)
    return arch, Dims(layers, letters["C"], letters["V"], letters)


def fingerprint(tensors: Mapping[str, RawTensor]) -> str:
    """Tell one set of weights from another without reading all of them.

    SHA-256 over every name, type and shape, and over 4 KiB at eight even places of every tensor,
    sorted by name. So it is the same for the same tensors in any file format that has them as they
    are; of one that has them in another form (quantized, turned around) the stored bytes count, and
    the name of that form. The prefix says that it is a sample, and it is never compared with a
    digest of the whole.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name};{tensor.dtype};{list(tensor.shape)};".encode())
        if tensor.derive is not None:
            digest.update(f"from {tensor.coding or 'another form'};".encode())
        last = max(0, tensor.nbytes - _SAMPLE_BYTES)
        for place in sorted({last * i // (_SAMPLES - 1) for i in range(_SAMPLES)}):
            digest.update(tensor.data[place : place + _SAMPLE_BYTES])
    return f"sampled:{digest.hexdigest()}"


def combined(prints: Sequence[str]) -> str:
    """Make a fingerprint of weights that follow from others, of which it knows the fingerprints."""
    return f"merged:{hashlib.sha256(chr(10).join(prints).encode()).hexdigest()}"
