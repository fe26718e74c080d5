"""The text of the CUDA kernels, from `native/cuda`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from rwkv_cli.errors import NotFoundError
from rwkv_cli.native.sources import folder

MAIN = "rwkv.cu"


@dataclass(frozen=True, slots=True)
class Source:
    """What a compiler of CUDA C++ is given.

    Attributes:
        main: The text of `rwkv.cu`, which includes all else.
        headers: The text of each file that can be included, by name.
    """

    main: str
    headers: MappingProxyType[str, str]


@cache
def source() -> Source:
    """Read the kernels.

    Raises:
        NotFoundError: This installation has none.
    """
    files = headers()
    path = folder() / "cuda" / MAIN
    if not path.is_file() or not files:
        raise NotFoundError(
            "the CUDA sources are missing from this installation", hint="install rwkv-cli again"
        )
    return Source(path.read_text(encoding="utf-8"), files)


def headers() -> MappingProxyType[str, str]:
    """Read every file that `rwkv.cu` may include, by name.

    Raises:
        NotFoundError: This installation has no sources at all.
    """
    paths = sorted((folder() / "cuda").glob("*.cuh"))
    return MappingProxyType({path.name: path.read_text(encoding="utf-8") for path in paths})
