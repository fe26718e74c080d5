"""Rows to a pipe come in the order of the input, and never fill the memory."""

from __future__ import annotations

import random

import pytest

from rwkv_cli.batch.ordered import Ordered, Unordered


def test_lines_come_in_the_order_in_which_rows_were_begun() -> None:
    dice, written = random.Random(1), []
    ordered = Ordered(written.append)
    begun, work = 0, []
    indexes = [index for index in range(500) if index % 3]  # some are done by nobody
    while len(written) < len(indexes):
        if begun < len(indexes) and ordered.room and len(work) < 32:
            ordered.expect(indexes[begun])
            work.append(indexes[begun])
            begun += 1
        else:
            index = work.pop(dice.randrange(len(work)))
            ordered.add(index, b"%d\n" % index, failed=index % 2 == 0)
    assert written == [b"%d\n" % index for index in indexes]


def test_a_row_that_takes_long_holds_others_back_within_bounds() -> None:
    for ordered in (Ordered(print, rows=50), Ordered(print, limit=49 * 100)):
        index = 0
        while ordered.room:
            ordered.expect(index)
            if index:
                ordered.add(index, bytes(100))
            index += 1
        assert index in (50, 51)


def test_once_the_row_comes_there_is_room_again() -> None:
    written: list[bytes] = []
    ordered = Ordered(written.append, rows=3)
    for index in range(3):
        ordered.expect(index)
    assert not ordered.room
    ordered.add(2, b"2")
    ordered.add(1, b"1")
    assert not ordered.room
    ordered.add(0, b"0")
    assert ordered.room
    assert written == [b"0", b"1", b"2"]


def test_unordered_lines_come_at_once() -> None:
    written: list[bytes] = []
    unordered = Unordered(written.append)
    for index in (3, 1, 2):
        unordered.expect(index)
        unordered.add(index, b"%d" % index)
    unordered.tick()
    assert unordered.room
    assert written == [b"3", b"1", b"2"]


@pytest.mark.parametrize("kind", [Ordered, Unordered])
def test_a_closed_pipe_is_told(kind: type[Ordered] | type[Unordered]) -> None:
    def closed(_: bytes) -> None:
        raise BrokenPipeError

    output = kind(closed)
    output.expect(0)
    with pytest.raises(BrokenPipeError):
        output.add(0, b"x")
