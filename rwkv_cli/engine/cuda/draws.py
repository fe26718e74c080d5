"""Drawing tokens where the logits are: the card feeds itself what it has drawn, and the host reads
along one step behind.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from rwkv_cli.engine.cuda.decode import Decode
from rwkv_cli.engine.cuda.device import Device, Run
from rwkv_cli.engine.cuda.program import constant
from rwkv_cli.engine.cuda.slots import Cell, Cells, Slot, Slots
from rwkv_cli.engine.protocol import DrawPlan
from rwkv_cli.engine.state import State
from rwkv_cli.native.cuda.structures import structures
from rwkv_cli.sampling import Sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rwkv_cli.engine.state import Float32s


class CardLogits:
    """The scores of the next token while they lie on the card: the `DeviceLogits` of this engine.

    Args:
        cell: Their memory; never written again.
    """

    __slots__ = ("cell",)

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def to_host(self) -> Float32s:
        """Copy them to the host."""
        found: Float32s = self.cell.data.cpu().numpy().copy()
        return found


@dataclass(frozen=True, slots=True)
class _Step:
    """A token that has been fed, or will have been.

    Attributes:
        after: The state after it.
        logits: What that expects next.
        drawn: Waits for the token that was drawn from them.
    """

    after: Cell
    logits: Cell
    drawn: Callable[[], torch.Tensor]


class Drawer:
    """A program of one token that ends with a draw; it serves one generation at a time.

    Args:
        device: Who runs it.
        slots: Memory for the model's states.
        scores: Memory for logits.
        decode: A program of a token of one sequence, to be added to.
    """

    def __init__(self, device: Device, slots: Slots, scores: Cells, decode: Decode) -> None:
        self.device, self.slots, self.scores, self.decode = device, slots, scores, decode
        program, self.vocab = decode.program, decode.dims.vocab
        vocab = self.vocab
        words = -(-vocab // 32)
        size = ctypes.sizeof(program.struct("DrawSettings"))
        self._settings = program.buffer("settings", (size,), torch.uint8)
        self._position = program.buffer("position", (1,), torch.int64)
        self._counts = program.buffer("counts", (vocab,))
        self._banned = program.buffer("banned", (words,), torch.int32)
        self._uncounted = program.buffer("uncounted", (words,), torch.int32)
        self._drawn = program.buffer("drawn", (1,), torch.int32)
        self._seen = program.buffer("seen", (words,), torch.int32)
        where = program.buffer("where", (4,), torch.int64)
        pointed = self.decode.logits, self._counts, self._seen, self._banned
        for index, tensor in enumerate(pointed):
            where[index] = tensor.data_ptr()
        program.kernel(
            "sample",
            "SampleArguments",
            (1, 1, 1),
            constant("kSampleThreads"),
            constant("kSampleShared"),
            logits=where[:1],
            settings=self._settings,
            position=self._position,
            counts=where[1:2],
            seen=where[2:3],
            banned=where[3:],
            uncounted=self._uncounted,
            token=self.decode.feed[16:],
            drawn=self._drawn,
            vocab=vocab,
        )
        self.owner: Draws | None = None
        self._knows_tokens = False
        self._run: Run = device.captured(program.run)

    def prepare(self, plan: DrawPlan, position: int) -> None:
        """Tell the card how to draw from now on.

        Args:
            plan: How.
            position: Tokens before the first that it draws.
        """
        upload = self.device.upload
        made = settings_of(plan.sampling, plan.seed, plan.stream)
        counts = torch.full((self.vocab,), -1.0)
        counts[torch.from_numpy(plan.penalty_ids.astype(np.int64))] = torch.from_numpy(
            plan.penalty_counts
        )
        upload(self._settings, torch.frombuffer(bytearray(made), dtype=torch.uint8))
        upload(self._position, torch.tensor([position]))
        upload(self._counts, counts)
        upload(self._seen, bits_of(plan.penalty_ids.astype(np.intp), self.vocab))
        upload(self._banned, bits_of(plan.never, self.vocab))
        if not self._knows_tokens:  # the tokenizer of a model does not change
            upload(self._uncounted, bits_of(plan.uncounted(), self.vocab))
            self._knows_tokens = True

    def set_token(self, token: int) -> None:
        """Say which token is fed next."""
        raw = np.array([token], np.int32).view(np.uint8)
        self.device.upload(self.decode.feed[16:], torch.from_numpy(raw))

    def step(self, before: Cell) -> _Step:
        """Start feeding the token that was drawn last to a state, and drawing the next."""
        (after,) = self.slots.take(1)
        addresses = np.array([before.address, after.address], np.int64).view(np.uint8)
        self.device.upload(self.decode.feed[:16], torch.from_numpy(addresses))
        self._run()
        (logits,) = self.scores.take(1)
        logits.data.copy_(self.decode.logits[0])
        return _Step(after, logits, self.device.download(self._drawn))


class Draws:
    """The tokens of one generation; the `Draws` of `engine/protocol.py`.

    Args:
        drawer: The program.
        plan: How tokens are drawn.
    """

    def __init__(self, drawer: Drawer, plan: DrawPlan) -> None:
        self._drawer, self._plan = drawer, plan
        self._ahead: tuple[int, _Step] | None = None  # the token that was fed, and what came of it
        drawer.owner = self

    @torch.inference_mode()
    def follow(self, state: State, token: int) -> int | None:
        """Feed a token to a state and give the next, drawn from it; -1 when none can be drawn, None
        when another generation has taken the card: then nothing was fed.
        """
        drawer = self._drawer
        if drawer.owner is not self:
            return None
        with drawer.device.guard():
            if self._ahead is None:
                drawer.prepare(self._plan, state.position + 1)
                drawer.set_token(token)
                self._ahead = token, drawer.step(drawer.slots.on_card(state).cell)
            fed, step = self._ahead
            assert fed == token, "a token that was not drawn"
            following = drawer.step(step.after)  # while the host looks at what came before
            drawn = int(step.drawn()[0])
        self._ahead = drawn, following
        state.move_to(Slot(drawer.slots.layout, step.after))
        state.tokens.extend([token])
        state.logits = CardLogits(step.logits)
        return drawn


def settings_of(sampling: Sampling, seed: int = 0, stream: int = 0) -> ctypes.Structure:
    """Give settings as the kernel takes them; of no seed where it is told its random numbers."""
    return structures()["DrawSettings"](
        temperature=sampling.temperature,
        min_p=sampling.min_p,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        temperature_first=int(sampling.order == "openai"),
        presence=sampling.presence,
        frequency=sampling.frequency,
        penalty_decay=sampling.penalty_decay,
        seed=seed & (2**64 - 1),
        stream=stream & (2**64 - 1),
    )


def bits_of(ids: NDArray[np.intp], vocab: int) -> torch.Tensor:
    """Give a bit for each token, set for some."""
    marks = np.zeros(-(-vocab // 32) * 32, np.uint8)
    marks[ids] = 1
    return torch.from_numpy(np.packbits(marks, bitorder="little").view(np.int32))
