"""What an RWKV version declares about itself: its parameters and its state, as tables; no tensors
here.

A parameter's axes are written in letters: C width, A width of the time-mixing, H heads, N head
size, F width of the channel-mixing, V vocabulary, D and a letter for a low rank, M for five of
them side by side; a number is itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType

# Outside the layers every version is alike.
GLOBAL_PARAMS = {
    "emb.weight": "V C",
    "blocks.0.ln0.weight": "C",
    "blocks.0.ln0.bias": "C",
    "ln_out.weight": "C",
    "ln_out.bias": "C",
    "head.weight": "V C",
}

LAYER_NORMS = {"ln1.weight": "C", "ln1.bias": "C", "ln2.weight": "C", "ln2.bias": "C"}

_MODULES = {
    "v4": "rwkv_cli.arch.v4",
    "v5.0": "rwkv_cli.arch.v5",
    "v5.1": "rwkv_cli.arch.v5",
    "v5.2": "rwkv_cli.arch.v5",
    "v6": "rwkv_cli.arch.v6",
    "v7": "rwkv_cli.arch.v7",
}


@dataclass(frozen=True, slots=True)
class Arch:
    """A version of RWKV.

    Attributes:
        name: "v4", "v5.0", "v5.1", "v5.2", "v6" or "v7".
        title: As people call it, for example 'RWKV-7 "Goose"'.
        params: Parameters of one layer under BlinkDL's names. "a|b" accepts either name; a leading
            "?" marks one that may be absent.
        state: State of one layer: name to axes.
        state_start: Value a state array starts from where that is not zero.
    """

    name: str
    title: str
    params: Mapping[str, str]
    state: Mapping[str, str]
    state_start: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Dims:
    """Sizes of a model: layers, width, vocabulary, and everything else by its letter."""

    layers: int
    width: int
    vocab: int
    letters: Mapping[str, int]

    def shape(self, axes: str) -> tuple[int, ...]:
        """Resolve axes such as "H N N" to numbers."""
        return tuple(int(a) if a.isdigit() else self.letters[a] for a in _split(axes))


@cache
def _split(axes: str) -> tuple[str, ...]:
    """Split axes, of which a table has few, and each new state asks for them."""
    return tuple(axes.split())


def known_archs() -> list[str]:
    """List the names of the versions this program runs."""
    return list(_MODULES)


def arch_module(name: str) -> ModuleType:
    """Import the file of a version: its tables, and the two functions of a layer."""
    return import_module(_MODULES[name])


def get_arch(name: str) -> Arch:
    """Look up a version by name."""
    arch: Arch = arch_module(name).ARCHS[name]
    return arch


def state_shapes(arch: Arch, dims: Dims) -> dict[str, tuple[int, ...]]:
    """Give the shape of each array of a state, layers first."""
    return {name: (dims.layers, *dims.shape(axes)) for name, axes in arch.state.items()}


def alternatives(name: str) -> tuple[bool, list[str]]:
    """Split a key of a parameter table: whether it may be absent, and the names it goes by.

    >>> alternatives("att.time_faaaa|att.time_first")
    (False, ['att.time_faaaa', 'att.time_first'])
    """
    return name.startswith("?"), name.removeprefix("?").split("|")
