"""Arrays go to a card and come back as a launch left them; here the CPU's memory is the card's."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from oracle import cuda_real
from oracle.cuda_host import compiler, host_kernels
from oracle.cuda_rows import (
    gaussian,
    launch,
    owner,
    poisoned,
    poisoned_plane,
    starts,
    states,
)


class OtherMemory:
    """Runs kernels on the host, but on copies, as a card does."""

    def __init__(self) -> None:
        self.launched: list[str] = []

    def launch(self, name: str, *how: Any) -> None:
        *rest, stream = how
        assert stream == 0
        self.launched.append(name)
        host_kernels().launch(name, *rest)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> OtherMemory:
    other = OtherMemory()
    monkeypatch.setattr(cuda_real, "kernels", lambda: other)
    monkeypatch.setattr(cuda_real, "Memory", functools.partial(cuda_real.Memory, "cpu"))
    return other


def last_rows() -> tuple[Any, Any]:
    """Launch rows_last: the last of each three rows, and what they were taken from."""
    x = gaussian(np.random.default_rng(0), 6, 64)
    out = poisoned(2, 64)
    launch(
        "rows_last", "RowsLastArguments", (2, 1, 1), 256,
        residual={"x": x}, out=out, sequences=2, starts=starts(2, 3), width=64,
    )  # fmt: skip
    return out, x


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
def test_a_launch_on_a_card_leaves_its_results_here(card: OtherMemory) -> None:
    out, x = last_rows()
    assert card.launched == ["rows_last"]
    assert np.array_equal(out, x[2::3])


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
def test_addresses_of_states_are_those_on_the_card(card: OtherMemory) -> None:
    before, after = [gaussian(np.random.default_rng(1), 64) for _ in range(2)], [poisoned(64)] * 2
    x, ones, zeros = (np.full((2, 64), n, np.float32) for n in (3, 1, 0))
    plane = poisoned_plane("fp32", 2, 64)
    launch(
        "rows_mix", "RowsMixArguments", (2, 1, 1), 256, 4 * (2 * 64 + 16),
        residual={"x": x}, weight=ones[0], bias=zeros[0], shift=states(before, after),
        mix=[ones[0]], plane=[plane], starts=starts(2, 1), owner=owner(2, 1), rows=2,
        width=64, planes=1, commit=1,
    )  # fmt: skip
    assert np.array_equal(plane.view(np.float32), np.stack(before))  # moved there all the way
    assert not after[0].any()  # equal numbers, normalized


def test_arrays_that_overlap_here_overlap_on_a_card() -> None:
    memory = cuda_real.Memory("cpu")
    whole = np.zeros((4, 6), np.float32)
    first, second = memory.address(whole[1:]), memory.address(whole.reshape(-1)[7:])
    assert second - first == 4
    assert first % 16 == whole[1:].ctypes.data % 16
    memory._copies[whole.ctypes.data][1].fill_(1)
    assert not whole.any()
    memory.fetch()
    assert (whole.view(np.uint8) == 1).all()


def test_a_machine_without_a_card_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_real.torch.cuda, "is_available", lambda: False)
    with pytest.raises(cuda_real.NoCardError, match="no card that torch can use"):
        cuda_real.use()
    assert cuda_real.kernels() is None or cuda_real._chosen


def test_nothing_that_is_no_array_is_copied(card: OtherMemory) -> None:
    with pytest.raises(AttributeError):
        launch("rows_last", "RowsLastArguments", (1, 1, 1), 256, no_such_field=3)
    assert not card.launched
