"""What is known of a model without loading it: its tokenizer, its sizes, its fingerprint. Enough to
say what rows ask when other machines answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rwkv_cli.arch.spec import Dims, state_shapes
from rwkv_cli.checkpoints.filenames import model_name
from rwkv_cli.engine.identity import Identity, describe
from rwkv_cli.engine.modelfile import DEMO, ModelFile, open_model
from rwkv_cli.engine.state import State
from rwkv_cli.errors import RefusedError
from rwkv_cli.text.registry import load_tokenizer
from rwkv_cli.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rwkv_cli.engine.lorafile import Lora


@dataclass(frozen=True, slots=True)
class Described:
    """A model that is not loaded.

    Attributes:
        name: What people call it: the file's stem, or "demo".
        file: Its header.
        identity: What its states are bound to; its `numerics` are empty until they are known.
        tokenizer: Bytes to token ids and back.
    """

    name: str
    file: ModelFile
    identity: Identity
    tokenizer: Tokenizer

    @property
    def dims(self) -> Dims:
        """The sizes."""
        return self.file.dims

    @property
    def template(self) -> str:
        """Name of its chat format."""
        return self.file.template

    def load_state(self, path: str | Path) -> State:
        """Read a state file of this model.

        Raises:
            NotFoundError: There is no such file.
            RefusedError: It is damaged.
            MismatchError: It belongs to another model.
        """
        from rwkv_cli.engine.statefile import load_state

        return load_state(Path(path), self.identity, state_shapes(self.file.arch, self.dims))


def describe_model(
    path: Path, *, tokenizer: str | None = None, loras: Sequence[Lora] = ()
) -> Described:
    """Read what the header of a weights file tells.

    Args:
        path: A weights file of any known format.
        tokenizer: Name or file of a tokenizer; None takes the one that belongs to the vocabulary.
        loras: Files of trained changes to merge into it, in their order.

    Raises:
        NotFoundError: The file or its tokenizer is missing.
        RefusedError: It is damaged, or not a model that runs here.
        MismatchError: It was packed by another version of this program, or a file to merge is of
            another model.
    """
    file = open_model(path)
    if loras:
        from rwkv_cli.engine.lora import with_loras

        file = with_loras(file, loras)
    chosen = tokenizer or file.tokenizer
    if chosen is None:
        raise RefusedError(
            f"{path}: no known tokenizer has a vocabulary of {file.dims.vocab}",
            hint="name one with --tokenizer FILE",
        )
    words = load_tokenizer(chosen, near=file.folder)
    identity = Identity(describe(file.arch, file.dims), file.fingerprint(), words.digest, "")
    own = "demo" if path == DEMO else model_name(path)
    return Described("+".join([own, *(one.path.stem for one in loras)]), file, identity, words)
