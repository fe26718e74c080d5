"""What is known of the models that have a name here; of their files only headers are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwkv_cli.checkpoints.filenames import model_name
from rwkv_cli.cli.settings import origins
from rwkv_cli.errors import RwkvError, UsageError
from rwkv_cli.files import reason
from rwkv_cli.hub import sidecar
from rwkv_cli.hub.names import DEMO_NAME, default_model, demo, installed, resolve
from rwkv_cli.hub.registry import read_registry
from rwkv_cli.places import models_folder
from rwkv_cli.sizes import amount, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rwkv_cli.cli.modelheaders import Header
    from rwkv_cli.engine.modelfile import ModelFile

_TYPES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64"}
_ORIGIN = ("repo", "file", "revision", "url", "sha256", "license", "downloaded")


@dataclass(frozen=True)
class Known:
    """A model that has a name here.

    Attributes:
        name: What -m calls it.
        path: Its file or its folder.
        is_added: Whether it stays where it lies.
    """

    name: str
    path: Path
    is_added: bool = False

    @cached_property
    def file(self) -> ModelFile | None:
        """The header; None when it cannot be read."""
        return None if isinstance(self._opened, str) else self._opened

    @property
    def why(self) -> str | None:
        """Why the header cannot be read; None when it can."""
        return self._opened if isinstance(self._opened, str) else None

    @cached_property
    def _opened(self) -> ModelFile | str:
        from rwkv_cli.engine.modelfile import open_model

        try:
            return open_model(self.path)
        except RwkvError as error:
            return error.message.removeprefix(str(self.path)).lstrip(": ")
        except OSError as error:
            return reason(error)

    @cached_property
    def size(self) -> int:
        """Its bytes; of a folder, those of its files."""
        return size_of(self.path)

    @property
    def kind(self) -> str:
        """How it is here."""
        if self.name == DEMO_NAME:
            return "built in"
        if self.is_added:
            return "in place"
        if self.path.is_symlink():
            return "link"
        return "folder" if self.path.is_dir() else "file"

    @property
    def weights(self) -> str:
        """The precision of most of its weights."""
        if self.file is None:
            return ""
        if self.file.packed:
            return self.file.packed.dtype
        sizes: dict[str, int] = {}
        for one in self.file.checkpoint.tensors.values():
            kind = one.coding or _TYPES.get(one.dtype, one.dtype)
            sizes[kind] = sizes.get(kind, 0) + prod(one.shape)
        return max(sizes, key=lambda kind: sizes[kind], default="")


def known_models() -> list[Known]:
    """List the models that have a name here, the demo last."""
    registry = read_registry()
    found = installed(models_folder(), registry)
    listed = [Known(name, path, name in registry.added) for name, path in found.items()]
    return [*listed, Known(DEMO_NAME, demo())]


def find_model(name: str) -> Known:
    """Find a model by what people call it; one that has no name here is told of all the same.

    Raises:
        NotFoundError: There is none.
    """
    path = resolve(name, models_folder())
    same = (model for model in known_models() if model.path in (path, path.absolute()))
    return next(same, Known(model_name(path), path))


def find_installed(name: str) -> Known:
    """Find a model that has a name here, whether its file is still there or not.

    Raises:
        NotFoundError: There is none.
        UsageError: It is a file that has no name here.
    """
    models = {model.name: model for model in known_models()}
    if name in models:
        return models[name]
    model = find_model(name)
    if model.name not in models or models[model.name].path != model.path:
        raise UsageError(f"{model.path} has no name here", hint=f"rwkv models add {name}")
    return model


def used() -> Path | None:
    """Give the model that is used when none is named; None when there is no telling."""
    try:
        wanted = origins({}).get("model")
        folder = models_folder()
        return resolve(wanted.value, folder) if wanted else default_model(folder)
    except RwkvError:  # whoever uses it is told why
        return None


def name_of(path: Path) -> str:
    """Give the name of a model here; of one that has none, its path."""
    return next((model.name for model in known_models() if model.path == path), str(path))


def brief(model: Known, header: Header) -> dict[str, Any]:
    """Tell what a list of models tells."""
    return {
        "name": model.name,
        "path": str(model.path),
        "kind": model.kind,
        "size": model.size,
        "version": header.version or None,
        "family": header.family or None,
        "weights": header.weights or None,
        "repo": _repository(model),
        "unusable": header.why,
    }


def row(model: Known, header: Header) -> list[str]:
    """Write what a list of models tells for people, after the name."""
    size = amount(model.size)
    if header.why is not None:
        return [size, f"unusable: {header.why}"]
    where = _repository(model) or ("" if model.kind == "file" else model.kind)
    return [size, header.version, header.family, header.weights, where]


def _repository(model: Known) -> str | None:
    known = sidecar.read(model.path)
    return known.repo if known else None


def full(model: Known) -> dict[str, Any]:
    """Tell everything that is known of a model; what is not known is left out."""
    from rwkv_cli.cli.modelbonds import Bonds

    registry = read_registry()
    path = model.path
    facts: dict[str, Any] = {
        "name": model.name,
        "aliases": sorted(n for n, t in registry.aliases.items() if t in (model.name, str(path))),
        "default": True if path == used() else None,
        "path": str(path),
        "kind": model.kind,
        "target": str(path.resolve()) if path.is_symlink() else None,
        "size": model.size,
        "unusable": model.why,
        **dict(_of_header(model)),
    }
    if origin := sidecar.read(path):
        facts |= {key: getattr(origin, key) for key in _ORIGIN}
    facts |= Bonds.of(model).told()
    return {key: value for key, value in facts.items() if value not in (None, [], "")}


def _of_header(model: Known) -> Iterator[tuple[str, Any]]:
    """Give the facts that the header tells."""
    from rwkv_cli.arch.spec import state_shapes

    file = model.file
    if file is None:
        return
    tensors: Any = file.packed.tensors if file.packed else file.checkpoint.tensors
    yield "format", file.checkpoint.format
    yield "version", file.arch.name
    yield "title", file.arch.title
    yield "parameters", sum(prod(one.shape) for one in tensors.values())
    yield "layers", file.dims.layers
    yield "width", file.dims.width
    yield "vocabulary", file.dims.vocab
    yield "tokenizer", file.tokenizer
    yield "family", file.template
    yield "weights", model.weights
    yield "state", sum(4 * prod(shape) for shape in state_shapes(file.arch, file.dims).values())
    yield "fingerprint", file.fingerprint()
