"""Builds GGUF files field by field, and remembers where each number and text begins."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

U32, F32, TEXT, ARRAY, U64 = 4, 6, 8, 9, 10
_FORMS = {0: "<B", U32: "<I", 5: "<i", F32: "<f", 7: "<?", U64: "<Q"}
C, F, V = 32, 64, 33

Pair = tuple[str, int, object]
Entry = tuple[str, tuple[int, ...], int, int]


@dataclass
class Builder:
    """Bytes that grow, the places in them that damage should hit, and the size of the file."""

    out: bytearray = field(default_factory=bytearray)
    marks: list[int] = field(default_factory=list)
    whole: int = 0

    def number(self, form: str, value: object) -> None:
        """Append a number."""
        self.marks.append(len(self.out))
        self.out += struct.pack(form, value)

    def text(self, value: str | bytes) -> None:
        """Append a text after its length."""
        raw = value if isinstance(value, bytes) else value.encode()
        self.number("<Q", len(raw))
        self.marks.append(len(self.out))
        self.out += raw

    def pair(self, key: str, kind: int, value: object) -> None:
        """Append a key and its value; an array is (type of an element, elements)."""
        self.text(key)
        self.number("<I", kind)
        if kind == TEXT:
            assert isinstance(value, (str, bytes))
            self.text(value)
        elif kind == ARRAY:
            assert isinstance(value, tuple)
            self.number("<I", value[0])
            self.number("<Q", len(value[1]))
            for element in value[1]:
                self.text(element) if value[0] == TEXT else self.number(_FORMS[value[0]], element)
        else:
            self.number(_FORMS[kind], value)


def base_pairs(arch: str = "rwkv7") -> list[Pair]:
    """The metadata of the smallest model."""
    return [
        ("general.architecture", TEXT, arch),
        (f"{arch}.block_count", U32, 1),
        (f"{arch}.embedding_length", U32, C),
        (f"{arch}.feed_forward_length", U32, F),
        (f"{arch}.attention.layer_norm_epsilon", F32, 1e-5),
        (f"{arch}.wkv.head_size", U32, 16),
        ("tokenizer.ggml.model", TEXT, "rwkv"),
        ("tokenizer.ggml.tokens", ARRAY, (TEXT, ["<s>", "a", "日"])),
        ("tokenizer.ggml.token_type", ARRAY, (5, [3, 1, 1])),
    ]


# Name, dimensions innermost first, type, bytes.
BASE_TENSORS: list[Entry] = [
    ("token_embd.weight", (C, V), 0, 4 * C * V),
    ("blk.0.attn_norm.weight", (C,), 0, 4 * C),
    ("blk.0.time_mix_lerp_fused.weight", (C, 1, 1, 6), 0, 24 * C),
    ("blk.0.time_mix_w1.weight", (C, 8), 1, 16 * C),
    ("blk.0.time_mix_r_k.weight", (C,), 0, 4 * C),
    ("blk.0.time_mix_key.weight", (C, C), 8, 34 * C),
    ("blk.0.channel_mix_key.weight", (C, F), 2, 18 * F),
    ("output.weight", (C, V), 30, 2 * C * V),
]


def gguf_file(
    pairs: Sequence[Pair] | None = None,
    tensors: Sequence[Entry] | None = None,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    offsets: dict[int, int] | None = None,
    alignment: int = 32,
    with_data: bool = True,
) -> Builder:
    """A GGUF file; counts and offsets (by number of the tensor) replace the truth."""
    pairs = base_pairs() if pairs is None else pairs
    tensors = BASE_TENSORS if tensors is None else tensors
    made = Builder(bytearray(b"GGUF"))
    made.number("<I", version)
    for count in counts or (len(tensors), len(pairs)):
        made.number("<Q", count)
    for pair in pairs:
        made.pair(*pair)
    at, ends = 0, []
    for index, (name, dims, kind, nbytes) in enumerate(tensors):
        made.text(name)
        made.number("<I", len(dims))
        for length in dims:
            made.number("<Q", length)
        made.number("<I", kind)
        made.number("<Q", (offsets or {}).get(index, at))
        ends.append(at + nbytes)
        at = -(-(at + nbytes) // alignment) * alignment
    made.out += bytes(-len(made.out) % alignment)
    made.whole = len(made.out) + (ends[-1] if ends else 0)
    if with_data:
        made.out += bytes(i * 37 % 61 for i in range(made.whole - len(made.out)))
    return made
