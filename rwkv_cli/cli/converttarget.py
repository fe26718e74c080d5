"""What `rwkv convert` writes, and where, as told by its flags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rwkv_cli.checkpoints.filenames import model_name
from rwkv_cli.engine.modelfile import DEMO
from rwkv_cli.errors import UsageError
from rwkv_cli.files import make_folder
from rwkv_cli.places import expanded, models_folder

if TYPE_CHECKING:
    from rwkv_cli.engine.lorafile import Lora

DTYPES = ("int8", "int4", "bf16", "fp16", "fp32")
SUFFIXES = {"pth": ".pth", "safetensors": ".safetensors", "hf": "", "packed": ".safetensors"}


def kind_of(to: str | None, dtype: str | None, output: str | None) -> str:
    """Choose the format to write.

    Raises:
        UsageError: What is asked for contradicts itself, or is too little.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    if to is not None and to not in SUFFIXES:
        raise UsageError(f"--to is {to!r}; it must be one of {', '.join(SUFFIXES)}")
    suffix = Path(output).suffix.lower() if output else ""
    told = {".pth": "pth", ".safetensors": "safetensors"}.get(suffix)
    packs = dtype if told != "pth" else dtype in ("int8", "int4")
    kind = to or ("packed" if packs else told)
    if kind is None:
        raise UsageError(
            f"no format is written under a name in {suffix}"
            if suffix
            else "nothing says what to make of it",
            hint="--to pth, safetensors or hf; or --dtype int8 to pack it",
        )
    if kind == "packed" and dtype is None:
        raise UsageError("--to packed needs a precision", hint="--dtype int8")
    if kind != "packed" and dtype in ("int8", "int4"):
        raise UsageError(f"only packed files hold {dtype}", hint="leave out --to")
    if told and SUFFIXES[kind] != SUFFIXES[told]:
        name = "a packed file" if kind == "packed" else kind
        raise UsageError(f"{output} is no name for {name}", hint=f"-o NAME{SUFFIXES[kind]}")
    return kind


def target_of(
    source: Path, loras: Sequence[Lora], kind: str, dtype: str | None, output: str | None
) -> Path:
    """Choose the file to write, and make its folder when it is our own.

    Raises:
        StorageError: The folder cannot be made.
    """
    stem = "demo" if source == DEMO else model_name(source)
    parts = [stem, *(one.path.stem for one in loras), *([dtype] if dtype else [])]
    name = "-".join(parts) + ("-hf" if kind == "hf" else SUFFIXES[kind])
    if output is not None:
        target = expanded(output)
        return target / name if target.is_dir() and kind != "hf" else target
    folder = models_folder()
    make_folder(folder, hint="name a file with -o FILE")
    return folder / name


def check_target(target: Path, sources: Sequence[Path], kind: str, *, force: bool) -> None:
    """Check that nothing is lost by writing there.

    Raises:
        UsageError: Something would be.
    """
    from rwkv_cli.engine.huggingface import FILES

    if not target.exists():
        return
    if any(target.samefile(source) for source in sources):
        raise UsageError(f"{target} is the original", hint="name another file with -o FILE")
    holds = {path.name for path in target.iterdir()} if target.is_dir() else None
    if holds == set() and kind == "hf":
        return
    if not force:
        raise UsageError(f"{target} exists", hint="--force replaces it")
    if kind == "hf" and (holds is None or not holds <= FILES):
        raise UsageError(
            f"{target} holds other things than a model", hint="name a new folder with -o FOLDER"
        )
