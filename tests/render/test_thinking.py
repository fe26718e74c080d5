"""A thought before the answer is folded; no word of the answer is, however it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_cli.render.thinking import Folded
from rwkv_cli.text.thoughts import answer_of

TEXTS = st.text("ab <>/think\n", max_size=40)


def folded(text: str, size: int = 1) -> str:
    """Give what is shown of a text that comes in pieces of one size."""
    fold = Folded(None)
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    return "".join(map(fold.feed, parts)) + fold.flush()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("<think>so</think>\n\nYes. <think>", "Yes. <think>"),
        (" <think>\n</think>No", "No"),
        ("<think>never ends", ""),
        ("<think", "<think"),
        ("<thin ice>", "<thin ice>"),
        ("a <think>b</think>", "a <think>b</think>"),
        ("<think>a</thin</think>b", "b"),
        ("", ""),
    ],
)
def test_a_thought_is_folded_however_it_comes(text: str, shown: str, size: int) -> None:
    assert folded(text, size) == shown


@given(TEXTS, TEXTS, st.integers(1, 9))
def test_folding_and_cutting_agree(before: str, after: str, size: int) -> None:
    for text in (before, f"<think>{before}</think>{after}", f"<think>{before}"):
        assert folded(text, size).strip() == answer_of(text)


def test_a_thought_is_told_of_unless_it_is_empty(capfd: pytest.CaptureFixture[str]) -> None:
    for text, told in (
        ("<think>hm</think>a", "thought: 3 tokens"),
        ("<think>\n</think>a", ""),
        ("<think>hm", "still thinking at the end: 3 tokens"),
    ):
        fold = Folded(lambda: 3)
        fold.feed(text)
        fold.flush()
        shown = capfd.readouterr().err
        assert told in shown
        assert bool(shown) == bool(told)
