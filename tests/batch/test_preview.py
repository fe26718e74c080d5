"""What a dry run shows."""

from __future__ import annotations

from dataclasses import replace

from rwkv_cli.batch.preview import previewed
from rwkv_cli.batch.row import Request, RowError
from rwkv_cli.sampling import Sampling

REQUEST = Request(0, b"one\ntwo", Sampling(), seed=1, max_tokens=4096)


def test_a_request_is_shown_with_its_tokens_and_its_prompt() -> None:
    assert previewed(1000, REQUEST, list) == [
        "row 1,000: 7 tokens, at most 4,096 more",
        "  one",
        "  two",
    ]
    several = replace(REQUEST, prompt=b"x", samples=3, state="book")
    head = "row 0: 1 token, at most 4,096 more, 3 answers, after the state book"
    assert previewed(0, several, list) == [head, "  x"]


def test_of_a_long_prompt_both_ends_are_shown() -> None:
    shown = previewed(0, replace(REQUEST, prompt=b"a" * 5000 + b"b"), list)
    assert [len(line) for line in shown[1:]] == [1002, 25, 1002]
    assert shown[2] == "  [3,001 characters more]"
    assert shown[3].endswith("ab")


def test_a_row_that_asks_nothing_says_why() -> None:
    assert previewed(5, RowError("bad_json", "it is null"), list) == ["row 5: bad_json: it is null"]
