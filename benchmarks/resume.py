"""How long going back to a conversation takes, beside reading it again.

`python benchmarks/resume.py MODEL [--tokens 8000] [--rounds 9] [--dtype int8] [--record NAME]`

A conversation of many turns is held in a folder of its own, as the chat holds it; then it is opened
as a new process would open it, and gone back and forth in. The model is loaded before the clock
starts. The next token after resuming is compared, bit for bit, with that of the conversation that
went on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from startup import machine

import rwkv_cli
from rwkv_cli.engine.model import Model
from rwkv_cli.sampling import Sampling
from rwkv_cli.session import Conversation, Manner
from rwkv_cli.store.budget import Budget
from rwkv_cli.store.library import Library
from rwkv_cli.store.records import Begin
from rwkv_cli.text.templates import load_template
from rwkv_cli.traces import Randomness

RECORDS = Path(__file__).parent / "records"
TURN = 180  # tokens of a message
WORDS = "the river turns and the old mill stands where water meets stone in a valley of "


def library(folder: Path) -> Library:
    """Give the conversations in a folder, with all the room there is."""
    return Library(folder, Budget(folder, limit=1 << 40))


def hold(model: Model, folder: Path, tokens: int) -> Conversation:
    """Hold a conversation of so many tokens, each turn kept as the chat keeps it."""
    log = library(folder).new()
    log.plan(Begin(log.id, model.name, str(model.path), model.identity, model.template))
    manner = Manner(Sampling(), Randomness(1), max_tokens=8)
    conversation = Conversation(model, load_template(model.template), manner, log)
    while conversation.position < tokens:
        words = (WORDS * TURN).split()[: TURN + conversation.position % 7]
        for _ in conversation.ask(" ".join(words)):
            pass
    return conversation


def resume(model: Model, folder: Path, chat: str) -> Conversation:
    """Open a conversation as a new process does."""
    log = library(folder).open(chat)
    log.recover()
    manner = Manner(Sampling(), Randomness(1), max_tokens=8)
    conversation = Conversation(model, load_template(model.template), manner, log)
    conversation.prepare()
    return conversation


def timed(what: Callable[[], object]) -> float:
    """Measure one call, in milliseconds."""
    start = time.perf_counter()
    what()
    return 1000 * (time.perf_counter() - start)


def measure(model: Model, folder: Path, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Measure everything, in milliseconds."""
    held = hold(model, folder, tokens)
    chat, rows = held.log.id, dict[str, list[float]]()  # type: ignore[attr-defined]

    def note(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    for _ in range(rounds):
        note("resume", timed(lambda: resume(model, folder, chat)))
        conversation = resume(model, folder, chat)
        _compare(model, conversation, held)
        turns = [turn.id for turn in conversation.turns]

        def step(go: Callable[[], object], conversation: Conversation = conversation) -> float:
            return timed(lambda: (go(), conversation.prepare()))

        note("undo, state on disk", step(conversation.undo))
        note("redo, state in memory", step(conversation.redo))
        note("goto, state on disk", step(lambda: conversation.goto(turns[3])))  # noqa: B023
        note("fork", timed(lambda: _fork(conversation, folder)))  # noqa: B023
        conversation.goto(turns[-1])
    ids = held.tree.tokens()
    note("reading it again", timed(lambda: model.prefill(list(ids))))
    rows["tokens"], rows["turns"] = [len(ids)], [len(held.turns)]
    rows["MB of the state"] = [held.prepare().nbytes / 1e6]
    return rows


def _compare(model: Model, resumed: Conversation, held: Conversation) -> None:
    """Let both read one token more: the bits must be the same."""
    (a, _), (b, _) = (model.decode(11, c.prepare()) for c in (resumed, held))
    if not np.array_equal(a, b):
        raise SystemExit("the resumed conversation goes on differently")


def _fork(conversation: Conversation, folder: Path) -> None:
    source = conversation.log
    copy = library(folder).new()
    begin = source.begin  # type: ignore[attr-defined]
    fields = {name: getattr(begin, name) for name in begin.__slots__}
    copy.plan(Begin(**{**fields, "id": copy.id, "turns": tuple(conversation.turns)}))
    copy.save()
    copy.adopt(source)  # type: ignore[arg-type]


def report(rows: dict[str, list[float]], model: Model) -> str:
    """Write the figures as Markdown."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    lines = [
        "# resume",
        "",
        f"`python benchmarks/resume.py {' '.join(map(_short, sys.argv[1:]))}`",
        "",
        f"{stamp}, commit {commit}; {machine()}; {model.name}, "
        f"{model.identity.numerics}; {rows['tokens'][0]:,.0f} tokens in {rows['turns'][0]:.0f} "
        f"turns, a state of {rows['MB of the state'][0]:.1f} MB. The next token after resuming was "
        "the same, bit for bit, in every round.",
        "",
        "| what | median | spread | n |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, values in rows.items():
        if name not in ("tokens", "turns", "MB of the state"):
            spread = f"{min(values):,.1f}–{max(values):,.1f}"
            lines.append(f"| {name} | {median(values):,.1f} ms | {spread} | {len(values)} |")
    return "\n".join(lines) + "\n"


def _short(argument: str) -> str:
    return Path(argument).name if Path(argument).is_file() else argument


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--record")
    flags = parser.parse_args()
    model = rwkv_cli.load(flags.model, device="cpu", dtype=flags.dtype)
    folder = Path(tempfile.mkdtemp(prefix="resume-"))
    try:
        rows = measure(model, folder / "chats", flags.tokens, flags.rounds)
    finally:
        shutil.rmtree(folder)
    text = report(rows, model)
    sys.stdout.write(text)
    if flags.record:
        (RECORDS / f"{flags.record}.md").write_text(text, encoding="utf-8")
        (RECORDS / f"{flags.record}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
