"""The whole numbers that C++ sources name: `constexpr` ones, and those of an `enum`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Collection, Mapping

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,  # of numbers that are not negative, as sizes are
    ast.LShift: operator.lshift,
}

_CONSTANT = re.compile(r"\bconstexpr\s+(?:int|u32|i64)\s+(\w+)\s*=\s*([^;]+);")
_ENUM = re.compile(r"\benum\s+\w*\s*\{([^}]*)\}")


def known_numbers(texts: Collection[str]) -> dict[str, int]:
    """Work out every constant of sources that is a whole number; others are left out.

    Args:
        texts: The sources, without comments.
    """
    numbers: dict[str, int] = {}
    before = -1
    while len(numbers) > before:  # one may be made of another that stands in a later file
        before = len(numbers)
        for text in texts:
            for name, value in _CONSTANT.findall(text):
                _note(numbers, name, value_of(value, numbers))
            for body in _ENUM.findall(text):
                _enumerate(body, numbers)
    return numbers


def _enumerate(body: str, numbers: dict[str, int]) -> None:
    """Read what stands between the braces of an `enum`."""
    following: int | None = 0
    for item in filter(None, map(str.strip, body.split(","))):
        name, _, given = map(str.strip, item.partition("="))
        value = value_of(given, numbers) if given else following
        _note(numbers, name, value)
        following = None if value is None else value + 1


def _note(numbers: dict[str, int], name: str, value: int | None) -> None:
    if value is not None:
        numbers[name] = value


def value_of(text: str, numbers: Mapping[str, int]) -> int | None:
    """Calculate an expression of C++ from numbers, names, + - * / << and brackets."""
    try:
        return _calculate(ast.parse(text.strip(), mode="eval").body, numbers)
    except (SyntaxError, KeyError, ZeroDivisionError):
        return None


def _calculate(node: ast.expr, numbers: Mapping[str, int]) -> int:
    """Calculate a node; KeyError is for everything that is not known."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return numbers[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _calculate(node.left, numbers), _calculate(node.right, numbers)
        return _OPERATORS[type(node.op)](left, right)
    raise KeyError(ast.dump(node))
