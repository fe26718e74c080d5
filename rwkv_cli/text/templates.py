"""How a conversation is written for each family of models, as data; knows no tokens and no states.

No text ends in a space: the models begin their answer with one, and a prompt that ends in a space
derails them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rwkv_cli.errors import UsageError
from rwkv_cli.text.cleaning import clean_stream, clean_text


@dataclass(frozen=True, slots=True)
class ThinkMode:
    """How a model that can think is told to.

    Attributes:
        name: As the user says it.
        request: Added to the user's message.
        opening: Added after the answer's lead-in; the model goes on from there.
    """

    name: str
    request: str
    opening: str


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    r"""The chat format of a family of models.

    A cleaned message cannot hold a blank line, so it cannot hold the "\n\n" before a role that
    makes a turn. A role at the start of a line ("\nUser:") can stand inside a message: these
    models are trained to see a turn only after a blank line, but weaker ones may still be taken in.

    Attributes:
        name: In the registry.
        user: Role of the user.
        assistant: Role of the model.
        system_role: Role of the system text; empty where the family has none and it is a paragraph
            of its own.
        stops: Byte strings that end an answer. End of text (id 0) does so for every family.
        system_form: The system text where "{text}" stands, with what follows it.
        turn_form: The user's message where "{text}" stands, with the lead-in of the answer.
        between: What stands between an answer and the next turn.
        start: What the context starts with.
        thinking: The ways of thinking, none for most; the first is the default.
    """

    name: str
    user: str
    assistant: str
    system_role: str
    stops: tuple[bytes, ...]
    system_form: str
    turn_form: str
    between: str = "\n\n"
    start: str = ""
    thinking: tuple[ThinkMode, ...] = ()

    @property
    def think_modes(self) -> tuple[str, ...]:
        """Names of the ways of thinking; empty where the models do not think."""
        return tuple(mode.name for mode in self.thinking)

    def opening(self) -> str:
        """What the context starts with."""
        return self.start

    def system(self, text: str) -> str:
        """The system text, cleaned, with what follows it; nothing for an empty one."""
        text = self.clean(text)
        return self.system_form.replace("{text}", text) if text else ""

    def turn(self, user: str, think: str | None = None) -> str:
        r"""The user's message, cleaned, up to where the answer begins.

        To be encoded in one go with the separator before it: alone, "\n\n" is one token of the
        20B tokenizer, where its models have seen two.

        Args:
            user: The message.
            think: One of `think_modes`; every family knows "off", and None means its default.

        Raises:
            UsageError: This family has no such mode.
        """
        mode = self._think_mode(think)
        text = self.clean(user)
        return self.turn_form.replace("{text}", text + mode.request) + mode.opening

    def separator(self) -> str:
        """What is fed after an answer, before the next turn."""
        return self.between

    def clean(self, text: str) -> str:
        """The message without blank lines, CRLF and surrounding white space."""
        return clean_text(text)

    def clean_stream(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """What `clean` makes of the chunks joined; bytes that are not UTF-8 pass unchanged."""
        return clean_stream(chunks)

    def _think_mode(self, name: str | None) -> ThinkMode:
        for mode in self.thinking:
            if name in (None, mode.name):
                return mode
        if name in (None, "off"):
            return _OFF
        known = ", ".join(self.think_modes) or "off alone: its models do not think"
        raise UsageError(f"the {self.name!r} format has no think mode {name!r}; it has {known}")


_OFF = ThinkMode("off", "", "")

# BlinkDL, RWKV7-G1x-templates.txt. The last ">" is missing on purpose: with the newline after it,
# it is one token, and that one is the model's to give.
_G1_THINKING = (
    _OFF,
    ThinkMode("fast", "", " <think>\n</think"),
    ThinkMode("short", " (think a bit)", " <think"),
    ThinkMode("on", "", " <think"),
    ThinkMode("long", " (think a lot)", " <think"),
)


def _world(name: str, thinking: tuple[ThinkMode, ...] = ()) -> ChatTemplate:
    return ChatTemplate(
        name=name,
        user="User",
        assistant="Assistant",
        system_role="System",
        stops=(b"\n\nUser:", b"\n\nSystem:", b"\n\nAssistant:", b"\nUser:"),
        system_form="System: {text}\n\n",
        turn_form="User: {text}\n\nAssistant:",
        thinking=thinking,
    )


_TEMPLATES = {
    template.name: template
    for template in (
        _world("world"),
        _world("g1", _G1_THINKING),
        _world("demo"),
        # ChatRWKV v2/chat.py: the tuned models of RWKV-4 on the Pile.
        ChatTemplate(
            name="raven",
            user="Bob",
            assistant="Alice",
            system_role="",
            stops=(b"\n\nBob:", b"\n\nAlice:", b"\nBob:"),
            system_form="{text}\n\n",
            turn_form="Bob: {text}\n\nAlice:",
        ),
        # The untuned ones answer when the context looks like a collection of questions and answers.
        # Here a lone newline does set off the parts, so a message with "\nDetailed Expert
        # Answer:\n" in it can pass for both.
        ChatTemplate(
            name="pile",
            user="Question",
            assistant="Detailed Expert Answer",
            system_role="",
            stops=(b"\n\nQuestion:", b"\n\nQ & A", b"\nQuestion:"),
            system_form="{text}\n\n",
            turn_form="Q & A\n\nQuestion:\n{text}\n\nDetailed Expert Answer:\n",
            start="\n",
        ),
    )
}

_G_SERIES = re.compile(r"(?<![a-z0-9])g[01][a-z]?(?![a-z0-9])")
_DATE = re.compile(r"(?<!\d)(20\d{6})(?!\d)")
_FIRST_G1_DATE = "20250301"


def load_template(name: str) -> ChatTemplate:
    """A chat format by name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in _TEMPLATES:
        raise UsageError(f"unknown chat format {name!r}; known are {', '.join(_TEMPLATES)}")
    return _TEMPLATES[name]


def beginning(template: ChatTemplate, before: bytes | None) -> str:
    """Give what stands before a chat turn.

    Args:
        template: The format.
        before: The last bytes of what the model has read; None when it has read nothing.
    """
    if before is None:
        return template.opening()
    between = template.separator()
    lengths = range(len(between), 0, -1)
    there = next((n for n in lengths if before.endswith(between[:n].encode())), 0)
    return between[there:]


def template_for(*, tokenizer: str, name: str, version: str) -> str:
    """Name of the chat format that fits a model best.

    Args:
        tokenizer: Name of its tokenizer.
        name: Of the model's file or folder: "raven" and "g1d" are told by it.
        version: Of the architecture, for example "v7".
    """
    name = name.lower()
    if tokenizer == "demo":
        return "demo"
    if tokenizer == "20b":
        return "raven" if "raven" in name else "pile"
    if version.startswith("v7") and "world" not in name and _is_g_series(name):
        return "g1"
    return "world"


def _is_g_series(name: str) -> bool:
    """Whether a file is called g0 or g1 with a letter, or only bears a date of that series."""
    if _G_SERIES.search(name):
        return True
    date = _DATE.search(name)
    return date is not None and date[1] >= _FIRST_G1_DATE
