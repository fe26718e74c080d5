"""GGUF files that lie about themselves are refused before anything is made of what they say."""

from __future__ import annotations

import os
import struct
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rwkv_cli.checkpoints.open import open_checkpoint
from tests.checkpoints.files import refusal, refusal_of
from tests.checkpoints.gguf_files import (
    ARRAY,
    BASE_TENSORS,
    F32,
    TEXT,
    U32,
    U64,
    Builder,
    C,
    Pair,
    V,
    base_pairs,
    gguf_file,
)

EMBEDDING = BASE_TENSORS[0]


def changed(key: str, kind: int, value: object) -> list[Pair]:
    """The metadata with one key added or replaced."""
    kept = [pair for pair in base_pairs() if pair[0] != key]
    return [*kept, (key, kind, value)]


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read(tmp_path: Path, version: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_file(version=version).out)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "GGUF"
        assert checkpoint.metadata["general.architecture"] == "rwkv7"
        shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
        codings = {t.coding for t in checkpoint.tensors.values()}
    assert shapes["emb.weight"] == (V, C)
    assert shapes["blocks.0.att.r_k"] == (2, 16)
    assert shapes["blocks.0.att.w1"] == (C, 8)
    assert shapes["blocks.0.att.x_g"] == (C,)
    assert codings == {None, "Q8_0", "Q4_0"}


@pytest.mark.parametrize(
    ("version", "reason"),
    [(1, "version 1"), (4, "version 4"), (3 << 24, "big-endian"), (0, "big-endian")],
)
def test_other_versions_are_named(tmp_path: Path, version: int, reason: str) -> None:
    assert reason in refusal(tmp_path / "m", gguf_file(version=version).out)


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (changed("general.architecture", TEXT, "llama"), "architecture llama, not RWKV-6 or 7"),
        (changed("general.architecture", TEXT, "rwkv6qwen2"), "RWKV-6 distilled from Qwen"),
        (changed("general.architecture", TEXT, "arwkv7"), "RWKV-7 distilled from Qwen"),
        (changed("general.architecture", U32, 7), "architecture none"),
        (changed("general.architecture", TEXT, "a\x1b[2J"), r"architecture a\x1b[2J,"),
        (base_pairs()[1:], "architecture none"),
        (changed("general.type", TEXT, "adapter"), "no model: it holds: adapter"),
        (changed("split.count", U32, 4), "is one of 4 parts"),
        (changed("split.count", TEXT, "\x1b[2J" * 99), r"is one of \x1b[2J"),
        (changed("rwkv7.block_count", U32, 2), "its block_count is 2, its tensors make it 1"),
        (changed("rwkv7.embedding_length", U32, 64), "its embedding_length is 64"),
        (changed("rwkv7.feed_forward_length", U32, 1), "its feed_forward_length is 1"),
        (changed("rwkv7.wkv.head_size", U32, 0), "how large its heads are"),
        (changed("rwkv7.wkv.head_size", U32, 5), "no whole number of heads"),
        (changed("rwkv7.wkv.head_size", U64, 1 << 63), "wkv.head_size is 9223372036854775808"),
        (changed("rwkv7.wkv.head_size", TEXT, "16"), "wkv.head_size is 16"),
        (changed("rwkv7.attention.layer_norm_epsilon", F32, 1e-3), "an epsilon of"),
        (changed("rwkv7.attention.layer_norm_epsilon", F32, float("nan")), "an epsilon of nan"),
        (changed("rwkv7.attention.layer_norm_epsilon", TEXT, "\x1b]0;" * 99), r"\x1b]0;"),
        (changed("general.alignment", U32, 0), "its alignment is 0"),
        (changed("general.alignment", U32, 24), "its alignment is 24"),
        (changed("general.alignment", U32, 1 << 31), "its alignment is 2147483648"),
        (changed("general.alignment", U64, 32), "its alignment is no number of 32 bits"),
        ([*base_pairs(), ("rwkv7.block_count", U32, 1)], "names rwkv7.block_count twice"),
        ([*base_pairs(), ("a", ARRAY, (ARRAY, []))], "array of arrays"),
        ([*base_pairs(), ("a", ARRAY, (13, []))], "unknown type 13"),
        ([*base_pairs(), ("a", TEXT, b"\xff")], "not UTF-8"),
        ([*base_pairs(), ("é", U32, 1)], "a key in its header is not ASCII"),
    ],
)
def test_metadata_that_cannot_be_are_refused(
    tmp_path: Path, pairs: list[Pair], reason: str
) -> None:
    message = refusal(tmp_path / "m", gguf_file(pairs).out)
    assert reason in message
    assert len(message) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (("token_embd.weight", (C, V), 10, 84), "type Q2_K, which is not read here"),
        (("token_embd.weight", (C, V), 99, 84), "type number 99"),
        (("token_embd.weight", (), 0, 4), "of 0 dimensions"),
        (("token_embd.weight", (1, 1, 1, 1, 1), 0, 4), "of 5 dimensions"),
        (("token_embd.weight", (0, V), 0, 4), "the shape of token_embd.weight makes no sense"),
        (("token_embd.weight", (1 << 63, 2), 0, 4), "makes no sense"),
        (("token_embd.weight", (2**31 - 1,) * 4, 0, 4), "is cut short or corrupt"),
        (("token_embd.weight", (31, V), 8, 34), "has 31 weights, no multiple of 32"),
        (("token_embd.weight", (64, 10**6), 12, 4), "no multiple of 256"),
        (("", (1,), 0, 4), "unusable name"),
        (("a\x1b]52;c;", (1,), 0, 4), "unusable name"),
        (("rope.freqs", (C,), 0, 4 * C), "a tensor that RWKV has not: rope.freqs"),
        (("blk.9999999.attn_norm.weight", (C,), 0, 4 * C), "a tensor that RWKV has not"),
        (("blk.0.time_mix_w1.weight", (C,), 0, 4 * C), "is no matrix"),
        (("blk.0.time_mix_lerp_fused.weight", (C, 1, 1, 5), 0, 20 * C), "does not hold 6 mixes"),
    ],
)
def test_tensors_that_cannot_be_are_refused(
    tmp_path: Path, entry: tuple[str, tuple[int, ...], int, int], reason: str
) -> None:
    others = [one for one in BASE_TENSORS if one[0] != entry[0]]
    assert reason in refusal(tmp_path / "m", gguf_file(None, [*others, entry]).out)


def empty_texts(key: int, count: int) -> bytes:
    """A key with an array of that many empty texts, in as many bytes as they take."""
    return struct.pack("<QcIIQ", 1, b"%d" % key, ARRAY, TEXT, count) + bytes(8 * count)


@pytest.mark.parametrize("counts", [[7_000_000], [600_000, 600_000]])
def test_millions_of_texts_are_refused_at_once(tmp_path: Path, counts: list[int]) -> None:
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, len(counts))
    path = tmp_path / "m"
    path.write_bytes(header + b"".join(map(empty_texts, (1, 2), counts)))
    started = time.process_time()
    assert "an array of" in refusal_of(path)
    assert time.process_time() - started < 1


def test_texts_that_are_of_no_use_take_no_memory(tmp_path: Path) -> None:
    long = [(f"k{index}", TEXT, "\U0001f600" * (1 << 18)) for index in range(32)]
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_file([*base_pairs(), *long]).out)
    tracemalloc.start()
    open_checkpoint(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 << 20


@pytest.mark.parametrize("offset", [1, 16, 32 * 3, 1 << 62, 2**64 - 32])
def test_offsets_that_lead_elsewhere_are_refused(tmp_path: Path, offset: int) -> None:
    message = refusal(tmp_path / "m", gguf_file(offsets={1: offset}).out)
    assert "lies across another tensor" in message or "is cut short or corrupt" in message


@pytest.mark.parametrize("counts", [(9, 9), (8, 10), (1 << 63, 9), (8, 1 << 40), (70_000, 9)])
def test_counts_beyond_what_is_there_are_refused(tmp_path: Path, counts: tuple[int, int]) -> None:
    assert str(tmp_path) in refusal(tmp_path / "m", gguf_file(counts=counts).out)


def test_a_name_that_two_tensors_have_is_refused(tmp_path: Path) -> None:
    content = gguf_file(None, [*BASE_TENSORS, EMBEDDING]).out
    assert "names token_embd.weight twice" in refusal(tmp_path / "m", content)


@pytest.mark.parametrize("length", [2**64 - 1, 1 << 40, 1 << 31, 17 << 20])
def test_lengths_beyond_what_is_there_are_refused(tmp_path: Path, length: int) -> None:
    for head in (
        struct.pack("<4sI3Q", b"GGUF", 3, 0, 1, length),
        struct.pack("<4sI2QQ1sIIQ", b"GGUF", 3, 0, 1, 1, b"a", ARRAY, TEXT, length),
        struct.pack("<4sI2QQ1sIIQ", b"GGUF", 3, 0, 1, 1, b"a", ARRAY, U64, length),
        struct.pack("<4sI2QQ1sIQ", b"GGUF", 3, 0, 1, 1, b"a", TEXT, length),
    ):
        assert str(tmp_path) in refusal(tmp_path / "m", head + bytes(100))


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    content = gguf_file().out
    for end in range(4, len(content) - BASE_TENSORS[-1][3], 97):
        assert str(tmp_path) in refusal(tmp_path / "m", content[:end])


@pytest.mark.parametrize(("rows", "tokenizer"), [(65_536, "world"), (V, None)])
def test_the_vocabulary_is_named_where_there_is_room_for_it(
    tmp_path: Path, rows: int, tokenizer: str | None
) -> None:
    tensors = [("token_embd.weight", (C, rows), 2, 18 * rows), *BASE_TENSORS[1:]]
    (tmp_path / "m").write_bytes(gguf_file(None, tensors).out)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert checkpoint.metadata.get("rwkv.tokenizer") == tokenizer


def test_the_value_residual_of_the_first_layer_is_left_out(tmp_path: Path) -> None:
    tensors = [*BASE_TENSORS, ("blk.0.time_mix_v1.weight", (C, 8), 1, 16 * C)]
    (tmp_path / "m").write_bytes(gguf_file(None, tensors).out)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert "blocks.0.att.v1" not in checkpoint.tensors


def test_whole_tensors_stay_mapped(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(gguf_file().out)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        mapped = [t for t in checkpoint.tensors.values() if t.derive is None]
        assert len({id(tensor.data.obj) for tensor in mapped}) == 1
        assert {t.name for t in mapped} >= {"emb.weight", "blocks.0.att.x_r", "head.weight"}


@pytest.mark.parametrize("every", [1, 2])
def test_outputs_that_were_scaled_for_halves_are_scaled_back(tmp_path: Path, every: int) -> None:
    pairs = [pair for pair in base_pairs("rwkv6") if "feed" not in pair[0]]
    pairs = [("rwkv6.block_count", U32, 3) if "block" in pair[0] else pair for pair in pairs]
    pairs.append(("rwkv6.rescale_every_n_layers", U32, every))
    names = [f"blk.{layer}.time_mix_output.weight" for layer in range(3)]
    tensors = [EMBEDDING, *((name, (C, C), 30, 2 * C * C) for name in names)]
    built = gguf_file(pairs, tensors).out
    built[-6 * C * C :] = b"\x80\x3f" * (3 * C * C)  # ones in BF16
    (tmp_path / "m").write_bytes(built)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        for layer in range(3):
            plain = checkpoint.tensors[f"blocks.{layer}.att.output.weight"].plain()
            assert plain.dtype == "BF16"
            values = (np.frombuffer(plain.data, "<u2").astype("<u4") << 16).view("<f4")
            assert (values == 2.0 ** (layer // every)).all()


def large(layers: int, width: int, vocab: int) -> Builder:
    """The header of a large file of Q4_K, its vocabulary included."""
    pairs = [pair for pair in base_pairs() if "tokens" not in pair[0] and "rwkv7" not in pair[0]]
    pairs += [
        ("rwkv7.block_count", U32, layers),
        ("rwkv7.wkv.head_size", U32, 64),
        ("tokenizer.ggml.tokens", ARRAY, (TEXT, [f"token {i}" for i in range(vocab)])),
    ]
    square = ((width, width), 12, width * width // 256 * 144)
    table = ((width, vocab), 12, width * vocab // 256 * 144)
    parts = ("key", "value", "receptance", "output", "w1", "w2", "a1", "a2", "g1", "g2")
    blocks = [(f"blk.{i}.time_mix_{part}.weight", *square) for i in range(layers) for part in parts]
    norms = [(f"blk.{i}.attn_norm.{end}", (width,), 0, 4 * width)
             for i in range(layers) for end in ("weight", "bias")]  # fmt: skip
    tensors = [("token_embd.weight", *table), *blocks, *norms, ("output.weight", *table)]
    return gguf_file(pairs, tensors, with_data=False)


@pytest.mark.skipif(sys.platform != "linux", reason="needs sparse files")
def test_the_header_of_a_file_of_14b_takes_under_a_second_and_no_weights(tmp_path: Path) -> None:
    built, path = large(layers=61, width=4096, vocab=65_536), tmp_path / "m.gguf"
    path.write_bytes(built.out)
    os.truncate(path, built.whole)
    assert built.whole > 5 << 30
    started = time.process_time()
    open_checkpoint(path).close()
    assert time.process_time() - started < 1
    tracemalloc.start()
    with open_checkpoint(path) as checkpoint:
        assert len(checkpoint.tensors) > 700
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
