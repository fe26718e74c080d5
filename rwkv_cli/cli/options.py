"""Every flag that more than one command has, once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click

from rwkv_cli.render.streams import stdout_sink
from rwkv_cli.version import __version__

F = TypeVar("F", bound=Callable[..., Any])


def whole_number(text: str) -> int:
    """Read an integer that may be written 4k, 1m or 2.5g (powers of a thousand).

    Raises:
        ValueError: It is none.
    """
    factor = {"k": 1000, "m": 1_000_000, "g": 1_000_000_000}.get(text[-1:].lower(), 1)
    if factor == 1:
        return int(text)
    whole, _, part = text[:-1].partition(".")
    if part and not part.isdecimal():
        raise ValueError(text)
    below: int = 10 ** len(part)
    return int(whole + part) * factor // below


class Number(click.ParamType["int"]):
    """An integer as `whole_number` reads it."""

    name = "integer"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Read it; click reports what is wrong."""
        if isinstance(value, int):
            return value
        try:
            return whole_number(value)
        except ValueError:
            self.fail(f"{value!r} is not a number such as 500 or 4k", param, ctx)


class TokenId(click.ParamType["int"]):
    """The id of a token."""

    name = "integer"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Read it; click reports what is wrong."""
        if not str(value).isdecimal():
            self.fail(f"{value!r} is no token id", param, ctx)
        return int(value)


class SamplingOption(click.Option):
    """An option that says how tokens are drawn."""

    section = "Sampling"


class ModelOption(click.Option):
    """An option that says which model runs where."""

    section = "Model"


class Command(click.Command):
    """A command whose help page has its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section at a time; those that belong to none come first."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title in sorted(sections, key=["Options", "Rows", "Sampling", "Model"].index):
            with formatter.section(title):
                formatter.write_dl(sections[title])


NUMBER = Number()

_model = partial(click.option, cls=ModelOption)
_sampling = partial(click.option, cls=SamplingOption)

_MODEL = (
    _model("-m", "--model", metavar="MODEL", help="Weights file, installed model or 'demo'."),
    _model(
        "--lora",
        multiple=True,
        metavar="FILE[:ALPHA]",
        help="Merge a LoRA, PiSSA or DiSHA file; ALPHA is its rank unless given.",
    ),
    _model("--tokenizer", metavar="NAME|FILE", help="Instead of the one the vocabulary tells."),
    _model("--template", metavar="NAME", help="Chat format: world, g1, raven, pile, demo."),
    _model("--strategy", metavar="TEXT", help="'auto', or as in 'cuda fp16 *9 -> cpu fp32'."),
    _model("--vram-budget", type=NUMBER, metavar="N", help="Most bytes of a card, such as 3g."),
    _model("--ram-budget", type=NUMBER, metavar="N", help="Most bytes of memory, such as 8g."),
    _model("--device", metavar="DEVICE", help="Such as cpu, cuda or mps."),
    _model("--dtype", metavar="DTYPE", help="fp32, bf16, fp16, int8, int4; else the file's."),
    _model("--engine", metavar="NAME", help="native or torch; else the best. ray: a cluster."),
    _model("--kernels", metavar="NAME", help="On CUDA: auto, torch or cuda."),
    _model("-t", "--threads", type=int, metavar="N", help="Threads on a CPU."),
)

_SAMPLING = (
    _sampling("--temperature", type=float, metavar="X", help="0: always the likeliest token."),
    _sampling("--top-p", type=float, metavar="X", help="Keep the likeliest up to this sum."),
    _sampling("--top-k", type=int, metavar="N", help="Keep the N likeliest; 0: all."),
    _sampling("--min-p", type=float, metavar="X", help="Keep those this likely, relatively."),
    _sampling("--presence", type=float, metavar="X", help="Penalty of every used token."),
    _sampling("--frequency", type=float, metavar="X", help="Penalty of each use."),
    _sampling("--penalty-decay", type=float, metavar="X", help="Fading of penalties a token."),
    _sampling(
        "--sampler-order", metavar="ORDER", help="rwkv or openai: temperature last or first."
    ),
    _sampling("--ban", type=TokenId(), multiple=True, metavar="ID", help="A token never to use."),
    _sampling("--seed", type=NUMBER, metavar="N", help="Makes the random numbers repeat."),
)


def _print_help(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        _print(context, context.get_help())


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        _print(context, f"rwkv {__version__}")


def _print(context: click.Context, text: str) -> None:
    """Write a page to stdout by the one way that notices when it cannot be written."""
    stdout_sink().write(f"{text}\n".encode())
    context.exit()


help_option = click.option(
    "-h", "--help", is_flag=True, is_eager=True, expose_value=False, callback=_print_help,
    help="Show this page.",
)  # fmt: skip
version_option = click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version.",
)  # fmt: skip

_COMMON = (
    click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
    click.option("-v", "--verbose", is_flag=True, help="More on stderr."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    help_option,
)


def together(options: tuple[Callable[[Any], Any], ...]) -> Callable[[F], F]:
    """Make one decorator of several options, which are listed in their order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


model_options = together(_MODEL)
sampling_options = together(_SAMPLING)
common_options = together(_COMMON)
