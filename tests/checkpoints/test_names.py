"""Files of other projects get BlinkDL's names and shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rwkv_cli.checkpoints.open import open_checkpoint
from tests.checkpoints.files import refusal, safetensors_bytes
from tests.checkpoints.test_pth import as_torch

V, C, D, H, N = 11, 8, 3, 2, 4
V7 = {
    "emb.weight": (V, C),
    "blocks.0.ln0.weight": (C,),
    "blocks.0.ln1.bias": (C,),
    "blocks.0.ln2.weight": (C,),
    "blocks.0.att.x_r": (1, 1, C),
    "blocks.0.att.w0": (C,),
    "blocks.0.att.w1": (C, D),
    "blocks.0.att.w2": (D, C),
    "blocks.0.att.g1": (C, C),
    "blocks.0.att.g2": (D, C),
    "blocks.0.att.r_k": (H, N),
    "blocks.0.att.receptance.weight": (C, C),
    "blocks.0.att.key.weight": (C, C),
    "blocks.0.att.value.weight": (C, C),
    "blocks.0.att.output.weight": (C, C),
    "blocks.0.att.ln_x.weight": (C,),
    "blocks.0.ffn.x_k": (C,),
    "blocks.0.ffn.key.weight": (4 * C, C),
    "blocks.0.ffn.value.weight": (C, 4 * C),
    "ln_out.weight": (C,),
    "head.weight": (V, C),
}
FLA = {
    "emb.weight": "model.embeddings.weight",
    "blocks.0.ln0.weight": "model.layers.0.pre_norm.weight",
    "blocks.0.ln1.bias": "model.layers.0.attn_norm.bias",
    "blocks.0.ln2.weight": "model.layers.0.ffn_norm.weight",
    "blocks.0.att.x_r": "model.layers.0.attn.x_r",
    "blocks.0.att.w0": "model.layers.0.attn.w_lora.lora.2.bias",
    "blocks.0.att.w1": "model.layers.0.attn.w_lora.lora.0.weight",
    "blocks.0.att.w2": "model.layers.0.attn.w_lora.lora.2.weight",
    "blocks.0.att.g1": "model.layers.0.attn.g_lora.lora.0.weight",
    "blocks.0.att.g2": "model.layers.0.attn.g_lora.lora.2.weight",
    "blocks.0.att.r_k": "model.layers.0.attn.r_k",
    "blocks.0.att.receptance.weight": "model.layers.0.attn.r_proj.weight",
    "blocks.0.att.key.weight": "model.layers.0.attn.k_proj.weight",
    "blocks.0.att.value.weight": "model.layers.0.attn.v_proj.weight",
    "blocks.0.att.output.weight": "model.layers.0.attn.o_proj.weight",
    "blocks.0.att.ln_x.weight": "model.layers.0.attn.g_norm.weight",
    "blocks.0.ffn.x_k": "model.layers.0.ffn.x_k",
    "blocks.0.ffn.key.weight": "model.layers.0.ffn.key.weight",
    "blocks.0.ffn.value.weight": "model.layers.0.ffn.value.weight",
    "ln_out.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
V4 = {
    "emb.weight": "rwkv.embeddings.weight",
    "blocks.0.ln0.weight": "rwkv.blocks.0.pre_ln.weight",
    "blocks.0.ln1.weight": "rwkv.blocks.0.ln1.weight",
    "blocks.0.att.time_decay": "rwkv.blocks.0.attention.time_decay",
    "blocks.0.att.time_mix_k": "rwkv.blocks.0.attention.time_mix_key",
    "blocks.0.att.time_mix_v": "rwkv.blocks.0.attention.time_mix_value",
    "blocks.0.att.time_mix_r": "rwkv.blocks.0.attention.time_mix_receptance",
    "blocks.0.att.time_mix_g": "rwkv.blocks.0.attention.time_mix_gate",
    "blocks.0.att.output.weight": "rwkv.blocks.0.attention.output.weight",
    "blocks.0.ffn.time_mix_k": "rwkv.blocks.0.feed_forward.time_mix_key",
    "blocks.0.ffn.receptance.weight": "rwkv.blocks.0.feed_forward.receptance.weight",
    "ln_out.bias": "rwkv.ln_out.bias",
    "head.weight": "head.weight",
}
Tensors = dict[str, torch.Tensor]


def weights() -> Tensors:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator) for name, shape in V7.items()}


def turned(tensors: Tensors) -> Tensors:
    """The low-rank matrices transposed."""
    low = {"w1", "w2", "g1", "g2"}
    return {n: t.T.contiguous() if n[-2:] in low else t for n, t in tensors.items()}


def assert_original(path: Path, stored: Tensors, expected: Tensors) -> None:
    save_file(stored, path)
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint.tensors) == set(expected)
        for name, tensor in checkpoint.tensors.items():
            assert tensor.shape == tuple(expected[name].shape), name
            assert torch.equal(as_torch(tensor), expected[name]), name


def test_original_names_stay(tmp_path: Path) -> None:
    assert_original(tmp_path / "m", weights(), weights())


@pytest.mark.parametrize("prefix", ["rwkv7.", "model."])
def test_a_prefix_is_dropped(tmp_path: Path, prefix: str) -> None:
    stored = {n if n == "head.weight" else prefix + n: t for n, t in weights().items()}
    assert_original(tmp_path / "m", stored, weights())


def test_flash_linear_attention_is_renamed_and_turned_even_when_square(tmp_path: Path) -> None:
    stored = {FLA[name]: tensor for name, tensor in turned(weights()).items()}
    assert_original(tmp_path / "m", stored, weights())


def test_transformers_of_rwkv_4_and_5_are_renamed(tmp_path: Path) -> None:
    expected = {name: torch.full((2, 2), float(i)) for i, name in enumerate(V4)}
    assert_original(tmp_path / "m", {V4[n]: t for n, t in expected.items()}, expected)


def test_low_rank_matrices_that_lie_across_are_turned(tmp_path: Path) -> None:
    """The web-rwkv converter keeps the names; the width tells which side is which."""
    expected = {name: tensor for name, tensor in weights().items() if name[-2:] != "g1"}
    assert_original(tmp_path / "m", turned(expected), expected)


def test_joined_mixes_of_flash_linear_attention_are_parted(tmp_path: Path) -> None:
    mixes = torch.randn(6, 1, 1, C)
    stored = {FLA["emb.weight"]: torch.ones(V, C), "model.layers.0.attn.x_x": mixes}
    expected = {f"blocks.0.att.x_{mix}": mixes[i] for i, mix in enumerate("rwkvag")}
    assert_original(tmp_path / "m", stored, {"emb.weight": torch.ones(V, C), **expected})


V6 = {
    "emb.weight": (V, C),
    "blocks.0.att.time_maa_x": (1, 1, C),
    "blocks.0.att.time_maa_w1": (C, 5 * D),
    "blocks.0.att.time_maa_w2": (5, D, C),
    "blocks.0.att.time_decay_w1": (C, D),
    "blocks.0.att.time_decay_w2": (D, C),
    "blocks.0.att.time_faaaa": (H, N),
    "blocks.0.ffn.time_maa_k": (1, 1, C),
}


@pytest.mark.parametrize("twice", [False, True])
def test_rwkv_6_of_web_rwkv_gets_its_names_back(tmp_path: Path, twice: bool) -> None:
    """One of their scripts transposes time_mix_w1 and w2 twice, and so not at all."""
    expected = {name: torch.randn(shape) for name, shape in V6.items()}
    stored = {}
    for name, tensor in expected.items():
        new = name.replace("time_faaaa", "time_first").replace("time_maa", "time_mix")
        is_low = new.endswith(("w1", "w2")) and not (twice and "mix" in new)
        stored[new] = (tensor.transpose(-1, -2) if is_low else tensor).contiguous()
    assert_original(tmp_path / "m", stored, expected)


@pytest.mark.parametrize(("width", "dtype"), [(1, torch.float16), (N, torch.bfloat16)])
def test_the_bonus_of_anyone_else_stays_a_logarithm(
    tmp_path: Path, width: int, dtype: torch.dtype
) -> None:
    expected = {"emb.weight": torch.ones(V, C), "blocks.0.att.time_first": torch.ones(H, width)}
    expected = {name: tensor.to(dtype) for name, tensor in expected.items()}
    assert_original(tmp_path / "m", expected, expected)


def test_an_empty_tensor_of_endless_width_is_turned(tmp_path: Path) -> None:
    shapes = {
        "model.embeddings.weight": [0, 2],
        "model.layers.0.attn.w_lora.lora.0.weight": [0, 2**62],
    }
    header = {n: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}
    (tmp_path / "m").write_bytes(safetensors_bytes(header))
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert checkpoint.tensors["blocks.0.att.w1"].plain().data.nbytes == 0


def test_factors_of_a_lora_get_their_names_back(tmp_path: Path) -> None:
    expected = {
        "blocks.0.att.key.lora_A": torch.randn(D, C),
        "blocks.0.att.key.lora_B": torch.randn(C, D),
        "blocks.0.ln1.weight": torch.randn(C),
    }
    stored = {
        "blocks.0.att.key.lora.0": expected["blocks.0.att.key.lora_A"].T.contiguous(),
        "blocks.0.att.key.lora.1": expected["blocks.0.att.key.lora_B"],
        "blocks.0.ln1.weight": expected["blocks.0.ln1.weight"],
    }
    assert_original(tmp_path / "m", stored, expected)


def test_two_names_that_become_one_are_refused(tmp_path: Path) -> None:
    save_file(
        {"model.emb.weight": torch.ones(2, 2), "emb.weight": torch.ones(2, 2)}, tmp_path / "m"
    )
    assert "names emb.weight twice" in refusal(tmp_path / "n", (tmp_path / "m").read_bytes())
