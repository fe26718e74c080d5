"""Code in an answer: what a person would copy out of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_cli.text.fenced import first_block

FENCES = st.sampled_from(["```", "````", "~~~", "~~~~~"])
INDENTS = st.sampled_from(["", " ", "   ", "      ", "\t"])
LINES = st.lists(
    st.text("ab `~\t#.", max_size=12).filter(lambda x: "```" not in x and "~~~" not in x)
)


@given(FENCES, INDENTS, st.sampled_from(["", "python", " c++ {.x}"]), LINES, st.booleans())
def test_the_lines_of_a_block_come_back_as_they_are(
    fence: str, indent: str, info: str, lines: list[str], closed: bool
) -> None:
    code = "".join(line + "\n" for line in lines)
    block = "".join(f"{indent}{line}\n" for line in [fence + info, *lines, *([fence] * closed)])
    text = f"Here is `it`:\n\n{block}" + "\nand\n```\nanother\n```\n" * closed
    assert first_block(text.encode()) == code.encode()


@given(st.binary(max_size=200))
def test_any_bytes_give_bytes_that_stand_in_them(text: bytes) -> None:
    found = first_block(text)
    assert (found is not None) == any(
        line.lstrip(b" \t").startswith(b"~~~")
        or (line.lstrip(b" \t").startswith(b"```") and b"`" not in line.lstrip(b" \t`"))
        for line in text.split(b"\n")
    )
    assert all(line.rstrip(b"\r\n") in text for line in (found or b"").splitlines(keepends=True))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"no code here, only `some` words", None),
        (b"```in a sentence``` is no block", None),
        (b"", None),
        (b"```", b""),
        (b"```\n```", b""),
        (b"```py\nx = 1", b"x = 1"),
        (b"```py\nx = 1\n", b"x = 1\n"),
        (b"```\na\n~~~\nb\n```\nc", b"a\n~~~\nb\n"),
        (b"~~~\n```\nx\n```\n~~~\n", b"```\nx\n```\n"),
        (b"````md\n```\nx\n```\n````\n", b"```\nx\n```\n"),
        (b"```\n``` not closed by this\nx\n```", b"``` not closed by this\nx\n"),
        (b"```c\r\nint x;\r\n```\r\nDone", b"int x;\r\n"),
        (b"1. Do\n\n   ```sh\n   ls |\n     wc\n less\n   ```\n", b"ls |\n  wc\nless\n"),
        (b"```\n\xff\x00\xfe\n```", b"\xff\x00\xfe\n"),
        (b"~~~ `with` backticks\nx\n~~~   \n", b"x\n"),
        (b"  ```\n  \x0b\x0c\r  \xe2\x80\xa8 \n```", b"\x0b\x0c\r  \xe2\x80\xa8 \n"),
    ],
)  # fmt: skip
def test_a_block_is_what_markdown_says(text: bytes, code: bytes | None) -> None:
    assert first_block(text) == code
