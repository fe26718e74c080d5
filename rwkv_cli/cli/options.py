"""Every flag that more than one command has, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.ParamType["int"]):
    """An integer that may be written 4k or 1m (thousands and millions)."""

    name = "integer"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Read it; click reports what is wrong."""
        if isinstance(value, int):
            return value
        factor = {"k": 1000, "m": 1_000_000}.get(value[-1:].lower(), 1)
        digits = value[:-1] if factor > 1 else value
        try:
            return int(digits) * factor
        except ValueError:
            self.fail(f"{value!r} is not a number such as 500 or 4k", param, ctx)


NUMBER = Number()

_MODEL = (
    click.option("-m", "--model", metavar="MODEL", help="Weights file, installed model or 'demo'."),
    click.option(
        "--tokenizer", metavar="NAME|FILE", help="Instead of the one the vocabulary tells."
    ),
    click.option("--template", metavar="NAME", help="Chat format: world, g1, raven, pile, demo."),
    click.option("--strategy", metavar="TEXT", help="Device and precision, such as 'cpu bf16'."),
    click.option("--device", metavar="DEVICE", help="Such as cpu, cuda or mps."),
    click.option("--dtype", metavar="DTYPE", help="fp32, bf16 or fp16; else as in the file."),
    click.option("-t", "--threads", type=int, metavar="N", help="Threads on a CPU."),
)

_SAMPLING = (
    click.option("--temperature", type=float, metavar="X", help="0: always the likeliest token."),
    click.option("--top-p", type=float, metavar="X", help="Keep the likeliest up to this sum."),
    click.option("--top-k", type=int, metavar="N", help="Keep the N likeliest; 0: all."),
    click.option("--min-p", type=float, metavar="X", help="Keep those this likely, relatively."),
    click.option("--presence", type=float, metavar="X", help="Penalty of every used token."),
    click.option("--frequency", type=float, metavar="X", help="Penalty of each use."),
    click.option("--penalty-decay", type=float, metavar="X", help="Fading of penalties a token."),
    click.option(
        "--sampler-order", metavar="ORDER", help="rwkv or openai: temperature last or first."
    ),
    click.option("--ban", type=int, multiple=True, metavar="ID", help="A token never to use."),
    click.option("--seed", type=NUMBER, metavar="N", help="Makes the random numbers repeat."),
)

_COMMON = (
    click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
    click.option("-v", "--verbose", is_flag=True, help="More on stderr."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)


def _together(options: tuple[Callable[[Any], Any], ...]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


model_options = _together(_MODEL)
sampling_options = _together(_SAMPLING)
common_options = _together(_COMMON)
