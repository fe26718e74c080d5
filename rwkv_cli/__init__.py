"""Talk to and generate with RWKV language models; the names below load on first use.

>>> import rwkv_cli
>>> model = rwkv_cli.load("demo")
>>> logits, state = model.prefill(model.tokenizer.encode(b"Once upon a time"))
>>> logits.shape
(2048,)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from rwkv_cli.version import __version__

if TYPE_CHECKING:
    from rwkv_cli.api import load as load
    from rwkv_cli.engine.model import Model as Model
    from rwkv_cli.engine.state import State as State
    from rwkv_cli.errors import RwkvError as RwkvError
    from rwkv_cli.generation import Generation as Generation
    from rwkv_cli.sampling import Sampling as Sampling

__all__ = ["Generation", "Model", "RwkvError", "Sampling", "State", "__version__", "load"]

_HOMES = {
    "Generation": "rwkv_cli.generation",
    "Model": "rwkv_cli.engine.model",
    "RwkvError": "rwkv_cli.errors",
    "Sampling": "rwkv_cli.sampling",
    "State": "rwkv_cli.engine.state",
    "load": "rwkv_cli.api",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__})
