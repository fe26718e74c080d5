"""The stack of layers that every version shares: embedding, residual layers, final norm, head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rwkv_cli import ops

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Stack:
    """Parameters of a model, ready to run; layers may lie on different devices.

    Attributes:
        emb: (V, C) embedding rows.
        ends: `ln0`, `ln0_bias`, `ln_out`, `ln_out_bias` (C) and `head` (V, C), as attributes.
        layers: The parameters of each layer, as attributes: `att.w1` is `att_w1`, `att.key.weight`
            is `att_key`. Each time they are gone through, which may bring them to their device.
        time_mix: The version's time-mixing.
        channel_mix: The version's channel-mixing.
    """

    emb: torch.Tensor
    ends: Any
    layers: Iterable[Any]
    time_mix: Callable[..., tuple[torch.Tensor, torch.Tensor | None]]
    channel_mix: Callable[..., torch.Tensor]

    def hidden(self, tokens: torch.Tensor, states: Sequence[Any]) -> torch.Tensor:
        """Run tokens (B, T) through all layers, advancing one state a layer in place: (B, T, C)
        float32.
        """
        x = self.emb[tokens].float().to(self.ends.ln0.device)
        x = ops.layer_norm(x, self.ends.ln0, self.ends.ln0_bias)
        first = None
        for p, state in zip(self.layers, states, strict=True):
            if p.ln1.device != x.device:
                x = x.to(p.ln1.device)
                first = None if first is None else first.to(p.ln1.device)
            mixed, first = self.time_mix(p, ops.layer_norm(x, p.ln1, p.ln1_bias), state, first)
            x = x + mixed
            x = x + self.channel_mix(p, ops.layer_norm(x, p.ln2, p.ln2_bias), state)
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Give the scores of the next token, (..., V) float32, for hidden (..., C)."""
        hidden = hidden.to(self.ends.ln_out.device)
        x = ops.layer_norm(hidden, self.ends.ln_out, self.ends.ln_out_bias)
        return ops.linear(x, self.ends.head)
