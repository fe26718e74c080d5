"""What is shown of a download is true and never goes back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_cli.render import downloading
from rwkv_cli.render.downloading import DownloadView
from rwkv_cli.render.progress import bar


class Kept:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        pass


@given(st.integers(1, 10**11), st.lists(st.floats(0, 1), max_size=30))
def test_events_never_go_back_and_never_exceed_the_whole(size: int, shares: list[float]) -> None:
    sink = Kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloading, "_EVENT", 0.0)
        view = DownloadView(quiet=False, events=sink)
        view.begin("name", size, 0)
        for share in shares:
            view.at(int(share * size))
        view.end()
    done = [json.loads(line)["done"] for line in sink.data.splitlines()]
    assert done == sorted(done)
    assert all(count <= size for count in done)


def lines_of(
    capfd: pytest.CaptureFixture[str], size: int | None, steps: list[int], have: int = 0
) -> list[str]:
    capfd.readouterr()
    view = DownloadView(quiet=False)
    view.begin("model", size, have)
    for step in steps:
        view.at(step)
    view.end()
    return capfd.readouterr().err.splitlines()


def test_where_there_is_no_terminal_there_is_a_line_every_tenth(
    capfd: pytest.CaptureFixture[str],
) -> None:
    lines = lines_of(capfd, 1000, list(range(0, 1001, 10)))
    assert [line.split()[1] for line in lines] == [str(share) for share in range(10, 101, 10)]


def test_a_download_that_jumps_to_its_end_says_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert len(lines_of(capfd, 1000, [1000, 1000])) == 1


def test_going_on_is_said_with_what_is_there(capfd: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(capfd, 4_000_000, [], have=1_000_000)
    assert lines == ["going on with model: 1.0 MB of 4.0 MB are here"]


def test_a_size_that_nobody_knows_is_not_made_up(capfd: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(capfd, None, [200 << 20])
    assert "%" not in "".join(lines)
    assert "209.7 MB" in lines[0]


def test_names_of_strangers_cannot_drive_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    view = DownloadView(quiet=False)
    view.begin("\x1b[31mred", 100, 0)
    view.at(100, "\x07state")
    view.say("\x1b]0;title\x07")
    view.end()
    assert "\x1b" not in capfd.readouterr().err


def test_the_bar_is_empty_at_nothing_and_full_at_the_whole() -> None:
    assert bar(0, 100, 10) == "▕" + " " * 10 + "▏"
    assert bar(100, 100, 10) == "▕" + "█" * 10 + "▏"
    lengths = {len(bar(done, 100, 10)) for done in range(101)}
    assert lengths == {12}
