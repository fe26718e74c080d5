"""Which tokenizers there are, by name, file or vocabulary size; knows no model and no text."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from rwkv_cli.errors import UsageError
from rwkv_cli.text.tokenizer import Tokenizer

# Each takes the model's folder or None.
_BY_NAME = {
    "world": "rwkv_cli.text.world:open_world",
    "20b": "rwkv_cli.text.bpe:open_20b",
    "bytes": "rwkv_cli.text.byte:open_bytes",
    "demo": "rwkv_cli.text.bpe:open_demo",
}

# Each takes the path.
_BY_SUFFIX = {
    ".json": "rwkv_cli.text.bpe:open_file",
    ".txt": "rwkv_cli.text.world:open_file",
}

# Rows of a model's embedding; models are padded past the tokenizer's own 65,530 and 50,277 ids.
_BY_VOCABULARY: Mapping[int, str] = {
    **dict.fromkeys((65529, 65530, 65535, 65536), "world"),
    **dict.fromkeys(range(50277, 50304 + 1), "20b"),
    256: "bytes",
}


def for_vocabulary(vocab: int) -> str | None:
    """Name of the tokenizer that models with this vocabulary use; None where it does not tell."""
    return _BY_VOCABULARY.get(vocab)


def load_tokenizer(name_or_path: str, *, near: Path | None = None) -> Tokenizer:
    """Open a tokenizer by name, or from a tokenizer .json or a World vocabulary .txt.

    Args:
        name_or_path: A registered name or a path.
        near: Folder of the model file, searched for the files that no package brings.

    Raises:
        UsageError: It is neither a known name nor a path to such a file.
        NotFoundError: The file, or one that the named tokenizer needs, does not exist.
        RefusedError: The file cannot be used.
    """
    if name_or_path in _BY_NAME:
        return _open(_BY_NAME[name_or_path], near)
    path = Path(name_or_path)
    if path.suffix.lower() in _BY_SUFFIX:
        return _open(_BY_SUFFIX[path.suffix.lower()], path)
    raise UsageError(
        f"unknown tokenizer {name_or_path!r}; known are {', '.join(_BY_NAME)}",
        hint="or give the path of a tokenizer .json or of a World vocabulary .txt",
    )


def _open(target: str, path: Path | None) -> Tokenizer:
    module, _, function = target.partition(":")
    tokenizer: Tokenizer = getattr(import_module(module), function)(path)
    return tokenizer
