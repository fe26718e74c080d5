"""Drawing the tokens of many sequences at once where their logits are: one upload, three launches,
and one copy of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rwkv_cli.engine.cuda.device import Device, Launch
from rwkv_cli.engine.cuda.draws import CardLogits, bits_of, settings_of
from rwkv_cli.engine.cuda.program import constant
from rwkv_cli.native.cuda.structures import structures
from rwkv_cli.sampling import Choice, Sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rwkv_cli.engine.state import DeviceLogits, Float32s

    Logits = Float32s | DeviceLogits | None

_KEPT = 256  # settings, and sets of banned tokens, that are remembered


class Chooser:
    """Draws for many sequences.

    Args:
        device: Who does it.
        vocab: V.
    """

    def __init__(self, device: Device, vocab: int) -> None:
        self.device, self.vocab = device, vocab
        self._words = -(-vocab // 32)
        self._settings: dict[Sampling, bytes] = {}
        self._banned: dict[bytes, torch.Tensor] = {}
        # For each sequence with penalties: -1 for each token, and no bit, but within a draw.
        self._counts = torch.zeros(0, vocab, device=device.place)
        self._seen = torch.zeros(0, self._words, dtype=torch.int32, device=device.place)

    def choose(self, logits: Sequence[Logits], choices: Sequence[Choice]) -> list[int]:
        """Draw a token of each: its id, -1 where none can be drawn."""
        count = len(choices)
        kept, where = self._on_card(logits)
        banned, bans = self._bans(choices)
        penalties = _Penalties(choices)
        places = self._places(penalties.rows, count)
        upload = _Upload()
        fields: dict[str, Any] = {
            "logits": upload.add(where),
            "uniform": upload.add(np.array([choice.u for choice in choices])),
            "settings": upload.add(np.frombuffer(self._settings_of(choices), np.uint8)),
            "banned": upload.add(bans) if bans.any() else None,
            "counts": upload.add(places[0]) if penalties.rows else None,
            "seen": upload.add(places[1]) if penalties.rows else None,
        }
        counted = {
            name: upload.add(part)
            for name, part in zip(("starts", "ids", "numbers"), penalties.parts, strict=True)
        }
        there = torch.empty(upload.size, dtype=torch.uint8, device=self.device.place)
        drawn = torch.empty(count, dtype=torch.int32, device=self.device.place)
        self.device.upload(there, torch.from_numpy(upload.raw()))
        begin = there.data_ptr()
        fields = {name: at if at is None else begin + at for name, at in fields.items()}
        counted = {name: begin + at for name, at in counted.items()}
        counted |= {"counts": fields["counts"], "seen": fields["seen"]}
        if penalties.rows:
            self._launch("sample_counts", count, "kCountThreads", clears=0, **counted)
        self._launch(
            "sample", count, "kSampleThreads", drawn=drawn.data_ptr(), vocab=self.vocab, **fields
        )
        if penalties.rows:
            self._launch("sample_counts", count, "kCountThreads", clears=1, **counted)
        found: list[int] = self.device.download(drawn)().tolist()
        del kept, banned  # until here kernels might have read them
        return found

    def _launch(self, name: str, blocks: int, threads: str, **fields: Any) -> None:
        kind = "SampleArguments" if name == "sample" else "SampleCountsArguments"
        shared = constant("kSampleShared") if name == "sample" else 0
        arguments = structures()[kind](**fields)
        self.device.launch(Launch(name, (blocks, 1, 1), constant(threads), shared, arguments))

    def _on_card(self, logits: Sequence[Logits]) -> tuple[torch.Tensor | None, NDArray[np.int64]]:
        """Give where logits lie, and what must be kept for it: those on the host go there."""
        where = np.empty(len(logits), np.int64)
        host: list[int] = []
        for row, one in enumerate(logits):
            if isinstance(one, CardLogits) and one.cell.place == self.device.place:
                where[row] = one.cell.address
            else:
                host.append(row)
        if not host:
            return None, where
        rows = np.stack([_on_host(logits[row]) for row in host])
        block = torch.from_numpy(rows).to(self.device.place)
        where[host] = block.data_ptr() + 4 * self.vocab * np.arange(len(host))
        return block, where

    def _settings_of(self, choices: Sequence[Choice]) -> bytes:
        """Give the settings of all."""
        parts: list[bytes] = []
        last: Sampling | None = None
        for choice in choices:
            if choice.sampling is not last:
                last = choice.sampling
                if last not in self._settings:
                    if len(self._settings) >= _KEPT:
                        self._settings.clear()
                    self._settings[last] = bytes(settings_of(last))
                made = self._settings[last]
            parts.append(made)
        return b"".join(parts)

    def _bans(self, choices: Sequence[Choice]) -> tuple[list[torch.Tensor], NDArray[np.int64]]:
        """Give where the bits of banned tokens lie, 0 for none, and what must be kept for it."""
        where = np.zeros(len(choices), np.int64)
        kept: list[torch.Tensor] = []
        last: NDArray[np.intp] | None = None
        address = 0
        for row, choice in enumerate(choices):
            if choice.never is not last:
                last, address = choice.never, 0
                if len(last):
                    kept.append(self._bits(last))
                    address = kept[-1].data_ptr()
            where[row] = address
        return kept, where

    def _bits(self, never: NDArray[np.intp]) -> torch.Tensor:
        key = never.tobytes()
        if key not in self._banned:
            if len(self._banned) >= _KEPT:
                self._banned.clear()
            self._banned[key] = bits_of(never, self.vocab).to(self.device.place)
        return self._banned[key]

    def _places(self, rows: Sequence[int], count: int) -> NDArray[np.int64]:
        """Give where the counts and the bits of sequences are, (2, count), 0 for those without."""
        if len(self._counts) < len(rows):
            size = 1 << (len(rows) - 1).bit_length()
            # The old ones go first: both at once may be too much.
            self._counts = self._seen = torch.zeros(0)
            self._counts = torch.zeros(size, self.vocab, device=self.device.place).fill_(-1)
            self._seen = torch.zeros(size, self._words, dtype=torch.int32, device=self.device.place)
        found = np.zeros((2, count), np.int64)
        order = np.arange(len(rows))
        found[0, rows] = self._counts.data_ptr() + order * 4 * self.vocab
        found[1, rows] = self._seen.data_ptr() + order * 4 * self._words
        return found


class _Penalties:
    """What the sequences of a draw have generated.

    Attributes:
        rows: The sequences whose penalties matter.
        parts: (count + 1,) where the tokens of each sequence begin; the tokens; and their counts.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.rows: list[int] = []
        starts = np.zeros(len(choices) + 1, np.int32)
        ids: list[NDArray[np.uint32]] = [np.zeros(0, np.uint32)]
        counts: list[Float32s] = [np.zeros(0, np.float32)]
        for row, choice in enumerate(choices):
            seen, numbers = choice.penalties.present()
            if len(seen) and (choice.sampling.presence or choice.sampling.frequency):
                self.rows.append(row)
                starts[row + 1] = len(seen)
                ids.append(seen)
                counts.append(numbers)
        self.parts = starts.cumsum(dtype=np.int32), np.concatenate(ids), np.concatenate(counts)


class _Upload:
    """Arrays that travel together; each begins at a multiple of 8 bytes.

    Attributes:
        size: Bytes so far.
    """

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[tuple[int, NDArray[Any]]] = []

    def add(self, part: NDArray[Any]) -> int:
        """Take an array along: where it begins."""
        at = self.size
        self._parts.append((at, part.reshape(-1).view(np.uint8)))
        self.size += -(-part.nbytes // 8) * 8
        return at

    def raw(self) -> NDArray[np.uint8]:
        """Give all of them."""
        whole = np.zeros(self.size, np.uint8)
        for at, part in self._parts:
            whole[at : at + len(part)] = part
        return whole


def _on_host(logits: Logits) -> Float32s:
    assert logits is not None, "a state that nothing is expected of"
    return logits if isinstance(logits, np.ndarray) else logits.to_host()
