"""No text of a stranger can drive a terminal; what it shows does not depend on how it comes.

TERMINAL_SEQUENCES=20000 python -m pytest tests/render/test_sanitizer.py
"""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import re
import sys
from collections.abc import Callable

import pyte
import pytest

from rwkv_cli.render.markdown import Markdown
from rwkv_cli.render.sanitize import Sanitizer, safe
from rwkv_cli.render.streams import Stage, TerminalSink
from rwkv_cli.render.thinking import Folded

# What can move, hide, reorder or restyle: everything that is not merely drawn where it stands.
FORBIDDEN = {
    *range(0x09),
    *range(0x0B, 0x20),
    *range(0x7F, 0xA0),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    *range(0xD800, 0xE000),
    *range(0xE0000, 0xE0080),
    *(0x061C, 0x200E, 0x200F, 0x2028, 0x2029),
}
BLOCK = 0x1000
SEQUENCES = int(os.environ.get("TERMINAL_SEQUENCES", "1000"))  # 20000 for all of them

Stages = Callable[[Callable[[], int]], list[Stage]]


@pytest.mark.parametrize("start", range(0, sys.maxunicode + 1, BLOCK * 16))
def test_no_character_that_drives_a_terminal_comes_through(start: int) -> None:
    for block in range(start, min(start + BLOCK * 16, sys.maxunicode + 1), BLOCK):
        text = "".join(f"{chr(code)}x" for code in range(block, block + BLOCK))
        shown = Sanitizer().feed(text)
        assert FORBIDDEN.isdisjoint(map(ord, shown)), hex(block)
        for code in (FORBIDDEN - {0x0A, 0x09}) & set(range(block, block + BLOCK)):
            assert Sanitizer().feed(f"a{chr(code)}b") not in (f"a{chr(code)}b", "ab"), hex(code)


def test_what_is_merely_text_stays_as_it_is() -> None:
    text = "Grüße, 世界! नमस्ते ไม้เอก שלום مرحبا é e\u0301 👩‍👩‍👧 \t and\na line"
    assert Sanitizer().feed(text) == text


def test_marks_piled_on_a_letter_are_cut() -> None:
    for mark in "\u0301\u20dd\ufe0f\U000e0101":
        assert len(Sanitizer().feed("a" + mark * 1000 + "b")) < 20


def test_a_name_stays_on_one_line() -> None:
    assert safe("a\nb\tc\rd\x85e\u2028f") == "a␊b␉c␍d<U+0085>e<U+2028>f"


# Control sequences


def sequences(count: int) -> list[str]:
    """Make strings in the grammar of ECMA-48, whole and broken, among letters."""
    rng = random.Random(48)

    def letters(alphabet: str, most: int) -> str:
        return "".join(rng.choices(alphabet, k=rng.randrange(most)))

    def one() -> str:
        parameters = letters("0123456789;:<=>?", 8) + letters(" !\"#$%&'()*+,-./", 2)
        final = chr(rng.randrange(0x40, 0x7F))
        command = rng.choice(["0;", "2;", "4;1;", "8;;", "52;c;", "133;A", "777;", "1337;"])
        payload = command + letters("abcdefgh/:=?;\n", 12)
        end = rng.choice(["\x07", "\x1b\\", "\x9c", ""])
        return rng.choice(
            [
                "\x1b[" + parameters + final,
                "\x9b" + parameters + final,
                "\x1b]" + payload + end,
                "\x9d" + payload + end,
                rng.choice(["\x1bP", "\x90", "\x1b_", "\x9f", "\x1b^", "\x9e", "\x1bX", "\x98"])
                + payload + end,
                "\x1b" + chr(rng.randrange(0x20, 0x7F)) + final,
                "\x1b" + chr(rng.randrange(0x30, 0x7F)),
                chr(rng.choice([*range(0x20), 0x7F, *range(0x80, 0xA0)])),
                "\u202e" + letters("abc", 4),
            ]
        )  # fmt: skip

    return [
        "".join(letters("abc\n*`#|> ", 6) + one() for _ in range(rng.randrange(1, 5)))
        for _ in range(count)
    ]


def chat_stages(width: Callable[[], int]) -> list[Stage]:
    """Give what an answer goes through in a chat."""
    return [Folded(None), Markdown(width, coloured=True)]


def shown_by(pieces: list[bytes], stages: Stages | None = None) -> bytes:
    """Give what a terminal's sink writes for an answer that comes in pieces."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    sink = TerminalSink(writer, stages)
    for piece in pieces:
        sink.write(piece)
    sink.close()
    os.close(writer)
    with open(reader, "rb") as pipe:
        return pipe.read()


def state(screen: pyte.Screen) -> tuple[object, ...]:
    """Give everything of a screen that text alone does not change."""
    return (
        screen.title, screen.icon_name, set(screen.mode), screen.margins, screen.charset,
        screen.cursor.hidden, screen.cursor.attrs._replace(data=" "), set(screen.tabstops),
    )  # fmt: skip


SINKS = pytest.mark.parametrize("stages", [None, chat_stages], ids=["plain", "chat"])
OURS = re.compile(rb"\x1b\[[0-9;]*m")


@SINKS
def test_no_control_sequence_changes_anything_but_text(stages: Stages | None) -> None:
    before = state(pyte.Screen(80, 24))
    for text in sequences(SEQUENCES):
        screen = pyte.Screen(80, 24)
        pyte.ByteStream(screen).feed(shown_by([text.encode()], stages).replace(b"\n", b"\r\n"))
        assert state(screen) == before, repr(text)


@SINKS
def test_no_character_changes_anything_but_text(stages: Stages | None) -> None:
    before = state(pyte.Screen(80, 24))
    step = 1 if SEQUENCES > 2000 else 7
    for start in range(0, sys.maxunicode + 1, BLOCK):
        text = "".join(f"{chr(code)}x" for code in range(start, start + BLOCK, step))
        screen = pyte.Screen(80, 24)
        shown = shown_by([text.encode("utf-8", "surrogatepass")], stages)
        pyte.ByteStream(screen).feed(shown.replace(b"\n", b"\r\n"))
        assert state(screen) == before, hex(start)


@SINKS
def test_what_is_shown_does_not_depend_on_how_it_comes(stages: Stages | None) -> None:
    for text in sequences(SEQUENCES // 5 if SEQUENCES < 20_000 else SEQUENCES):
        data = (text + "é世👩‍👧e\u0301").encode() + random.Random(len(text)).randbytes(6)
        whole = shown_by([data], stages)
        for cut in range(len(data) + 1):
            assert shown_by([data[:cut], data[cut:]], stages) == whole, (data, cut)
        assert shown_by([bytes([byte]) for byte in data], stages) == whole
        assert b"\x1b" not in OURS.sub(b"", whole)


def test_an_answer_ends_with_one_line_end_unless_it_is_empty() -> None:
    for data, shown in (
        (b"", b""),
        (b"a", b"a\n"),
        (b"a\n", b"a\n"),
        (b"\xe4", "\ufffd\n".encode()),
    ):
        assert shown_by([data]) == shown


def test_every_pair_of_bytes_is_shown_as_text() -> None:
    for pair in itertools.product(range(256), repeat=2):
        text = shown_by([bytes(pair)]).decode()
        assert FORBIDDEN.isdisjoint(map(ord, text)), pair
