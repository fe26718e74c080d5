"""States on devices of torch: each layer's part lies where the layer is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rwkv_cli.engine.state import State
from rwkv_cli.native.hostmemory import free_memory

if TYPE_CHECKING:
    from rwkv_cli.engine.state import Float32s

Tensors = Mapping[str, torch.Tensor]  # of a span: name to (layers, ...) or (layers, batch, ...)


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring layers on one device, from `begin` to before `end`."""

    device: str
    begin: int
    end: int


def spans_of(devices: Sequence[str]) -> tuple[Span, ...]:
    """Put layers that lie side by side on one device together."""
    found, begin = [], 0
    for device, group in groupby(devices):
        end = begin + len(list(group))
        found.append(Span(device, begin, end))
        begin = end
    return tuple(found)


def free_on_card(device: str | torch.device) -> int:
    """Count the bytes of a card that are free, with those that torch holds and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + held)


class TorchArrays:
    """A state's arrays on devices of torch."""

    def __init__(self, spans: tuple[Span, ...], parts: Sequence[Tensors]) -> None:
        self.spans, self.parts = spans, list(parts)

    def to_host(self) -> dict[str, Float32s]:
        """Copy every array to the host."""
        first, *rest = ({n: t.cpu().numpy() for n, t in part.items()} for part in self.parts)
        if not rest:
            return first
        return {name: np.concatenate((a, *(r[name] for r in rest))) for name, a in first.items()}

    def clone(self) -> TorchArrays:
        """Copy every array on its device."""
        parts = [{name: t.clone() for name, t in part.items()} for part in self.parts]
        return TorchArrays(self.spans, parts)


class Residence:
    """Where an engine keeps states.

    Attributes:
        device: Their devices, for people.
    """

    def __init__(self, spans: tuple[Span, ...]) -> None:
        self.spans = spans
        self._on_host = all(torch.device(span.device).type == "cpu" for span in spans)
        self.device = " and ".join(dict.fromkeys(span.device for span in spans))

    def free_bytes(self) -> int | None:
        """Count the bytes that are free where there are the fewest; None where nothing tells."""
        cards = {span.device for span in self.spans if torch.device(span.device).type == "cuda"}
        return min(map(free_on_card, cards)) if cards else free_memory()

    def open(self, states: Sequence[State]) -> list[Tensors]:
        """Bring states to their devices side by side, (layers, batch, ...) for each span; a single
        one is used where it is.
        """
        resident = [self._parts(state) for state in states]
        if len(resident) == 1:
            return [{name: t.unsqueeze(1) for name, t in part.items()} for part in resident[0]]
        return [
            {name: torch.stack([one[name] for one in together], dim=1) for name in together[0]}
            for together in zip(*resident, strict=True)
        ]

    def layers(self, opened: Sequence[Tensors]) -> Iterator[SimpleNamespace]:
        """Give each layer its (batch, ...) views, under the names of the version's state table."""
        for span, part in zip(self.spans, opened, strict=True):
            for layer in range(span.end - span.begin):
                yield SimpleNamespace(**{name: t[layer] for name, t in part.items()})

    def close(self, opened: Sequence[Tensors], states: Sequence[State]) -> None:
        """Give states that were stacked their rows back."""
        if len(states) == 1:
            return
        for row, state in enumerate(states):
            for own, part in zip(self._parts(state), opened, strict=True):
                for name, tensor in own.items():
                    tensor.copy_(part[name][:, row])

    def _parts(self, state: State) -> list[Tensors]:
        """Give a state's tensors on their devices, moving it there first; on a CPU it is used where
        it is.
        """
        kept = state.device
        if isinstance(kept, TorchArrays) and kept.spans == self.spans:
            return kept.parts
        host = {name: torch.from_numpy(a) for name, a in state.arrays.items()}
        parts: list[Tensors] = [
            {name: t[span.begin : span.end] for name, t in host.items()} for span in self.spans
        ]
        if self._on_host:
            return parts
        moved = [
            {name: t.to(span.device, copy=True) for name, t in part.items()}
            for span, part in zip(self.spans, parts, strict=True)
        ]
        state.move_to(TorchArrays(self.spans, moved))
        return list(moved)
