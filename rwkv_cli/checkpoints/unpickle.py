"""Interprets the pickle inside a .pth file; knows tensors and plain values, and nothing else.

A pickle is a program for a small stack machine (its opcodes: CPython Lib/pickletools.py). This
machine has only the opcodes that torch.save writes, and a name in the program becomes one of
the inert values of pickled.py: nothing is ever imported, looked up or called.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from rwkv_cli.checkpoints.pickled import Ordered, call, resolve, storage_of
from rwkv_cli.checkpoints.tensors import printable
from rwkv_cli.errors import RefusedError

# The largest published model takes some 60,000 steps.
MAX_STEPS = 400_000
MAX_STACK = 20_000
MAX_MARKS = 1_000
MAX_MEMO = 200_000
_MAX_LINE = 256
_MAX_LONG = 8


_Refuse = Callable[[str], RefusedError]


def unpickle(program: bytes, refuse: _Refuse) -> object:
    """Runs a pickle and returns what it describes.

    Args:
        program: The bytes of data.pkl.
        refuse: Makes the error from the reason.

    Raises:
        RefusedError: The pickle needs anything that weights do not need.
    """
    return _Machine(program, refuse).run()


class _Machine:
    """A stack, a memo and a position in the program."""

    def __init__(self, program: bytes, refuse: _Refuse) -> None:
        self.program = program
        self.refuse = refuse
        self.at = 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        program, length = self.program, len(self.program)
        for _ in range(MAX_STEPS):
            if self.at >= length:
                raise self.refuse("has a pickle that is cut short")
            opcode = program[self.at]
            self.at += 1
            if opcode == _STOP:
                return self.pop()
            step = _STEPS.get(opcode)
            if step is None:
                raise self.unknown(opcode)
            step(self)
            if len(self.stack) > MAX_STACK:
                raise self.refuse("has a pickle that holds too many values at once")
        raise self.refuse(f"has a pickle of more than {MAX_STEPS} steps")

    def unknown(self, opcode: int) -> RefusedError:
        if opcode in _OBJECT_OPCODES:
            return self.refuse(
                f"contains a Python object (pickle opcode {opcode:#04x}); nothing was run"
            )
        return self.refuse(
            f"has a pickle that weights never need (opcode {opcode:#04x}); nothing was run"
        )

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.program):
            raise self.refuse("has a pickle that is cut short")
        taken = self.program[self.at : end]
        self.at = end
        return taken

    def number(self, width: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def text(self, length: int) -> str:
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse("has a pickle with text that is not UTF-8") from None

    def line(self) -> str:
        end = self.program.find(b"\n", self.at, self.at + _MAX_LINE)
        if end < 0:
            raise self.refuse("has a pickle with a name that does not end")
        line = self.text(end - self.at)
        self.at = end + 1
        return line

    def pop(self) -> object:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) <= floor:
            raise self.refuse("has a pickle that takes from an empty stack")
        return self.stack.pop()

    def top(self) -> object:
        value = self.pop()
        self.stack.append(value)
        return value

    def mark(self) -> None:
        if len(self.marks) >= MAX_MARKS:
            raise self.refuse("has a pickle that is nested too deeply")
        self.marks.append(len(self.stack))

    def pop_to_mark(self) -> list[object]:
        if not self.marks:
            raise self.refuse("has a pickle that takes from an empty stack")
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_tuple(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def push_name(self, name: str) -> None:
        value = resolve(name)
        if value is None:
            raise self.refuse(f"contains a Python object ({printable(name)}); nothing was run")
        self.push(value)

    def put(self, index: int) -> None:
        if len(self.memo) >= MAX_MEMO:
            raise self.refuse("has a pickle that keeps too many values")
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise self.refuse("has a pickle that recalls a value it never kept")
        self.push(self.memo[index])

    def extend(self, values: list[object]) -> None:
        target = self.top()
        if type(target) is not list:
            raise self.refuse("has a pickle that appends to something that is no list")
        target.extend(values)

    def set_items(self, items: list[object]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise self.refuse("has a pickle that sets items of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise self.refuse("has a dict with a key that is no text")
            if key in target:
                raise self.refuse(f"is corrupt: it names {printable(key)} twice")
            target[key] = value

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        built = call(function, arguments)
        if built is None:
            raise self.refuse("has a pickle that calls something with arguments weights never have")
        self.push(built)

    def build(self) -> None:
        """Attributes of a state_dict (`_metadata`) are dropped; other objects have none."""
        state, target = self.pop(), self.top()
        if type(target) is not Ordered or not isinstance(state, dict):
            raise self.refuse("contains a Python object with attributes; nothing was run")

    def load_storage(self) -> None:
        storage = storage_of(self.pop())
        if storage is None:
            raise self.refuse("refers to something outside itself that is no tensor storage")
        self.push(storage)

    def stack_name(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise self.refuse("has a pickle with a name that is no text")
        self.push_name(f"{module}.{name}")

    def long(self) -> None:
        width = self.number(1)
        if width > _MAX_LONG:
            raise self.refuse(f"has a pickle with an integer of {width} bytes")
        self.push(self.number(width, signed=True))

    def protocol(self) -> None:
        version = self.number(1)
        if not 2 <= version <= 4:
            raise self.refuse(f"has a pickle of protocol {version}, which torch.save never writes")


_STOP = ord(".")
# INST, OBJ, EXT1, EXT2, EXT4, NEWOBJ, NEWOBJ_EX: all make an instance of some class.
_OBJECT_OPCODES = frozenset(b"io\x82\x83\x84\x81\x92")
_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: lambda m: m.protocol(),
    0x95: lambda m: _ignore(m.take(8)),  # FRAME: a hint about lengths
    ord("("): lambda m: m.mark(),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number(4, signed=True)),
    ord("K"): lambda m: m.push(m.number(1)),
    ord("M"): lambda m: m.push(m.number(2)),
    0x8A: lambda m: m.long(),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    ord("X"): lambda m: m.push(m.text(m.number(4))),
    0x8C: lambda m: m.push(m.text(m.number(1))),
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.extend([m.pop()]),
    ord("e"): lambda m: m.extend(m.pop_to_mark()),
    ord(")"): lambda m: m.push(()),
    0x85: lambda m: m.push_tuple(1),
    0x86: lambda m: m.push_tuple(2),
    0x87: lambda m: m.push_tuple(3),
    ord("t"): lambda m: m.push(tuple(m.pop_to_mark())),
    ord("}"): lambda m: m.push({}),
    ord("s"): lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.pop_to_mark()),
    ord("q"): lambda m: m.put(m.number(1)),
    ord("r"): lambda m: m.put(m.number(4)),
    0x94: lambda m: m.put(len(m.memo)),
    ord("h"): lambda m: m.get(m.number(1)),
    ord("j"): lambda m: m.get(m.number(4)),
    ord("c"): lambda m: m.push_name(f"{m.line()}.{m.line()}"),
    0x93: lambda m: m.stack_name(),
    ord("R"): lambda m: m.reduce(),
    ord("b"): lambda m: m.build(),
    ord("Q"): lambda m: m.load_storage(),
}


def _ignore(_: bytes) -> None:
    """Nothing to do."""
