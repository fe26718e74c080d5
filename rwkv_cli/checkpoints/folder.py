"""Reads a folder as Hugging Face's transformers leaves it: config.json and weights in one file or
in shards that an index lists; knows no tensor's meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rwkv_cli.checkpoints.bounded_json import TooManyValuesError, parse
from rwkv_cli.checkpoints.source import Origin, Source
from rwkv_cli.checkpoints.tensors import MAX_TENSORS, Contents, RawTensor, printable
from rwkv_cli.errors import NotFoundError

_READ_FILE = Callable[[Source], tuple[str, Contents]]

MAX_JSON = 16 << 20
_MOST_SHARDS = 1_000
CONFIG = "config.json"
# In the order that transformers looks for them.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_FORMATS = ("safetensors", "pth")
_EPSILONS = ("layer_norm_epsilon", "norm_eps")
_EPSILON = 1e-5
_OTHERS = {
    "RWKV6Qwen2ForCausalLM": "an RWKV-6 distilled from Qwen",
    "RwkvHybridForCausalLM": "an RWKV-7 distilled from Qwen",
    "RWKV6ForCausalLM": "an RWKV-6 of flash-linear-attention",
}


def weights_of(path: Path) -> Path | None:
    """The file in a folder that holds or lists its weights; None when there is none."""
    if not (path / CONFIG).is_file():
        return None
    return next((path / name for name in _WEIGHTS if (path / name).is_file()), None)


def read(path: Path, read_file: _READ_FILE) -> Contents:
    """Tensors of all shards under the names of the files.

    Args:
        path: The folder.
        read_file: Reads one file of weights.

    Raises:
        RefusedError: A file is damaged or missing, or the config describes another architecture.
    """
    origin = Origin(path)
    weights = weights_of(path)
    if weights is None:
        raise origin.refused(_missing(path), hint="Name the weights file itself.")
    config = _read_json(path / CONFIG)
    _check_config(origin, config)
    if weights.suffix == ".json":
        contents = _read_shards(origin, weights, read_file)
    else:
        contents = _read_shard(weights, read_file)
    tensors = contents.tensors
    if config.get("tie_word_embeddings") is True:
        tensors = _with_tied_head(tensors)
    return Contents(tensors, {}, contents.sources)


def _missing(path: Path) -> str:
    if not (path / CONFIG).is_file():
        return f"is a folder without {CONFIG}, so no model"
    return f"is a folder without weights: there is no {_WEIGHTS[0]} and no index"


def _read_json(path: Path) -> dict[str, object]:
    source = Source(path)
    if source.size > MAX_JSON:
        raise source.refused(f"has {source.size} bytes, far more than such a file needs")
    try:
        table = parse(bytes(source.view))
    except TooManyValuesError:
        raise source.refused("holds far more than such a file needs") from None
    except ValueError:
        raise source.refused("is not valid JSON") from None
    if not isinstance(table, dict):
        raise source.refused("is no JSON object")
    return table


def _check_config(origin: Origin, config: dict[str, object]) -> None:
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if isinstance(name, str) and name in _OTHERS:
        raise origin.refused(f"holds {_OTHERS[name]} ({name}), which does not run here")
    for key in _EPSILONS:
        value = config.get(key, _EPSILON)
        if not isinstance(value, float) or not abs(value / _EPSILON - 1) <= 1e-3:
            raise origin.refused(f"has a {key} of {printable(str(value))}, not {_EPSILON}")


def _read_shards(origin: Origin, index: Path, read_file: _READ_FILE) -> Contents:
    listed = _read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or len(listed) > MAX_TENSORS:
        raise Origin(index).refused("lists no weights")
    shards = sorted({name for name in listed.values() if _is_shard(name)})
    if not all(_is_shard(name) for name in listed.values()) or len(shards) > _MOST_SHARDS:
        raise Origin(index).refused("names a shard that is no file beside it")
    tensors: list[RawTensor] = []
    sources: tuple[Source, ...] = ()
    for shard in shards:
        try:
            one = _read_shard(index.parent / shard, read_file)
        except NotFoundError:
            raise origin.refused(
                f"lacks {shard}, one of its {len(shards)} shards", hint="Download it again."
            ) from None
        for tensor in one.tensors:
            if listed.get(tensor.name) != shard:
                raise Origin(index).refused(f"does not list {tensor.name} of {shard}")
        tensors += one.tensors
        sources += one.sources
    lost = set(listed) - {tensor.name for tensor in tensors}
    if lost:
        raise origin.refused(f"is incomplete: no shard holds {printable(min(lost))}")
    return Contents(tensors, {}, sources)


def _is_shard(name: object) -> bool:
    """Whether an entry of an index is the plain name of a file; a path could lead elsewhere."""
    return isinstance(name, str) and _SHARD.fullmatch(name) is not None


def _read_shard(path: Path, read_file: _READ_FILE) -> Contents:
    source = Source(path)
    name, contents = read_file(source)
    if name not in _FORMATS:
        raise source.refused(f"is a {name} file; a folder holds .safetensors or .bin of torch")
    return contents


def _with_tied_head(tensors: list[RawTensor]) -> list[RawTensor]:
    """Adds the head of a model that says it uses its embedding for that."""
    names = {tensor.name for tensor in tensors}
    if names & {"head.weight", "lm_head.weight"}:
        return tensors
    found = next(
        (t for t in tensors if re.fullmatch(r".*\b(emb|embeddings)\.weight", t.name)), None
    )
    return [*tensors, replace(found, name="head.weight")] if found else tensors
