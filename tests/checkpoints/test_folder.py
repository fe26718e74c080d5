"""A folder of Hugging Face's transformers is one checkpoint, and leads to no file outside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.errors import RefusedError
from tests.checkpoints.files import ggmf_bytes, refusal_of

INDEX = "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
WEIGHTS = [
    {"rwkv7.emb.weight": torch.ones(3, 2), "rwkv7.ln_out.bias": torch.ones(2)},
    {"rwkv7.blocks.0.ln1.weight": torch.full((2,), 2.0), "head.weight": torch.ones(3, 2)},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards, an index and a config."""
    made = tmp_path / "RWKV7-0.1B"
    made.mkdir()
    (made / "config.json").write_text('{"architectures": ["Rwkv7ForCausalLM"]}')
    for name, weights in zip(SHARDS, WEIGHTS, strict=True):
        save_file(weights, made / name)
    write_index(made)
    return made


def write_index(folder: Path, **changes: object) -> None:
    """Write the index; an entry that is None is left out."""
    table = {key: name for name, tensors in zip(SHARDS, WEIGHTS, strict=True) for key in tensors}
    listed = {key: name for key, name in {**table, **changes}.items() if name is not None}
    (folder / INDEX).write_text(json.dumps({"weight_map": listed}))


def test_shards_are_one_checkpoint_and_stay_mapped(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.format == "folder"
        assert checkpoint.path == folder
        assert set(checkpoint.tensors) == {
            "emb.weight", "ln_out.bias", "blocks.0.ln1.weight", "head.weight",
        }  # fmt: skip
        assert len({id(tensor.data.obj) for tensor in checkpoint.tensors.values()}) == 2
        assert checkpoint.file_bytes == sum((folder / name).stat().st_size for name in SHARDS)
        for tensor in checkpoint.tensors.values():
            before = bytes(tensor.data)
            checkpoint.release(tensor)
            assert bytes(tensor.data) == before


def test_weights_of_torch_are_read_where_there_are_no_others(folder: Path) -> None:
    for name in (*SHARDS, INDEX):
        (folder / name).unlink()
    assert "there is no model.safetensors and no index" in refusal_of(folder)
    torch.save(WEIGHTS[0], folder / "pytorch_model.bin")
    with open_checkpoint(folder) as checkpoint:
        assert set(checkpoint.tensors) == {"emb.weight", "ln_out.bias"}


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/passwd", "sub/m.safetensors", "..", ".hidden", "a\\b", "", 7,
     ["a"], {}, "a\0b", "x" * 300],
)  # fmt: skip
def test_an_index_never_leads_out_of_its_folder(folder: Path, name: object) -> None:
    save_file(WEIGHTS[1], folder.parent / "secret.safetensors")
    write_index(folder, **{"head.weight": name})
    assert "names a shard that is no file beside it" in refusal_of(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / SHARDS[1]).unlink()
    assert f"lacks {SHARDS[1]}, one of its 2 shards" in refusal_of(folder)


def test_a_tensor_that_no_shard_holds_is_named(folder: Path) -> None:
    write_index(folder, **{"rwkv7.blocks.1.ln1.weight": SHARDS[0]})
    assert "is incomplete: no shard holds rwkv7.blocks.1.ln1.weight" in refusal_of(folder)


@pytest.mark.parametrize("where", [None, SHARDS[0]])
def test_a_tensor_that_the_index_lists_elsewhere_is_named(folder: Path, where: str | None) -> None:
    write_index(folder, **{"head.weight": where})
    assert f"does not list head.weight of {SHARDS[1]}" in refusal_of(folder)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("", "is empty"),
        ("[]", "is no JSON object"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"a": [' + "[]," * 500_000 + "[]]}", "holds far more than such a file needs"),
        ('{"a": ' + "9" * 5000 + "}", "is not valid JSON"),
        ('{"architectures": ["RWKV6Qwen2ForCausalLM"]}', "an RWKV-6 distilled from Qwen"),
        ('{"architectures": ["RwkvHybridForCausalLM"]}', "an RWKV-7 distilled from Qwen"),
        ('{"norm_eps": 1e-6}', "has a norm_eps of 1e-06, not 1e-05"),
        ('{"layer_norm_epsilon": "x"}', "has a layer_norm_epsilon of x"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, config: str, reason: str) -> None:
    (folder / "config.json").write_text(config)
    assert reason in refusal_of(folder)


@pytest.mark.parametrize("index", ["[]", '{"weight_map": 1}', '{"weight_map": {}}', "{}"])
def test_an_index_without_weights_is_refused(folder: Path, index: str) -> None:
    (folder / INDEX).write_text(index)
    assert "lists no weights" in refusal_of(folder) or "no JSON object" in refusal_of(folder)


def test_a_shard_of_another_format_is_refused(folder: Path) -> None:
    rows = [("emb.weight", 0, (5, 4), bytes(80))]
    (folder / SHARDS[0]).write_bytes(ggmf_bytes(rows, (0x67676D66, 101, 5, 4, 0, 0)))
    assert "is a rwkv.cpp file; a folder holds" in refusal_of(folder)


def test_an_error_inside_a_shard_names_the_shard(folder: Path) -> None:
    (folder / SHARDS[0]).write_bytes(save(WEIGHTS[0])[:-3])
    with pytest.raises(RefusedError) as caught:
        open_checkpoint(folder)
    assert str(folder / SHARDS[0]) in caught.value.message
