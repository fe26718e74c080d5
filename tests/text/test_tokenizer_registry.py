"""Laws of finding a tokenizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.text.registry import for_vocabulary, load_tokenizer


@pytest.mark.parametrize(
    ("vocab", "name"),
    [
        (65536, "world"),
        (65535, "world"),
        (65530, "world"),
        (65529, "world"),
        (50277, "20b"),
        (50288, "20b"),
        (50304, "20b"),
        (256, "bytes"),
        (2048, None),
        (50276, None),
        (50305, None),
        (0, None),
    ],
)
def test_the_vocabulary_tells_the_tokenizer(vocab: int, name: str | None) -> None:
    assert for_vocabulary(vocab) == name


@pytest.mark.parametrize("name", ["world", "bytes"])
def test_names_open_tokenizers_of_that_name(name: str) -> None:
    assert load_tokenizer(name).name == name


def test_20b_is_looked_up_beside_the_model(shared_data: Path) -> None:
    assert load_tokenizer("20b", near=shared_data).name == "20b"


def test_paths_open_their_files(small_bpe_path: Path, world_path: Path) -> None:
    assert load_tokenizer(str(small_bpe_path)).name == "small"
    assert load_tokenizer(str(world_path)).name == "world"


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UsageError, match="world, 20b, bytes, demo"):
        load_tokenizer("gpt")


@pytest.mark.parametrize("suffix", [".json", ".txt"])
def test_missing_files_are_not_found(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(NotFoundError):
        load_tokenizer(str(tmp_path / f"none{suffix}"))


def test_a_short_prompt_imports_nothing_heavy() -> None:
    program = (
        "import sys; from rwkv_cli.text.registry import load_tokenizer; "
        "from rwkv_cli.text import detokenize, stops, templates; "
        "load_tokenizer('world').encode(b'User: hi' * 20); "
        "print([m for m in ('torch', 'numpy', 'tokenizers', 'pyrwkv_tokenizer', 'rwkv') "
        "if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
