"""Turns and states to keep, small and quick."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from rwkv_cli.engine.identity import Identity
from rwkv_cli.engine.state import State
from rwkv_cli.engine.statefile import load_state
from rwkv_cli.store.budget import Budget
from rwkv_cli.store.chatlog import ChatLog
from rwkv_cli.store.disk import Disk
from rwkv_cli.store.library import Library
from rwkv_cli.store.records import Begin
from rwkv_cli.tree import Turn, new_id

IDENTITY = Identity("v7;L=1;V=99;", "sampled:aa", "bb", "test")
SHAPES = {"wkv": (3, 5)}


def begin(chat: str, **changes: object) -> Begin:
    fields = {"model_name": "m", "model_path": "/m", "identity": IDENTITY, "template": "world"}
    return Begin(id=chat, **{**fields, **changes})


def turn(parent: str = "", seed: int = 0, size: int = 4) -> Turn:
    dice = random.Random(seed)
    prompt, reply = ([dice.randrange(99) for _ in range(size)] for _ in range(2))
    text = "".join(chr(dice.randrange(32, 0xD000)) for _ in range(size))
    return Turn(new_id(), parent, text, text[::-1], tuple(prompt), tuple(reply), "end", "", "now")


def state(tokens: list[int] | tuple[int, ...] = (), seed: int = 0) -> State:
    made = State({"wkv": np.random.default_rng(seed).random((3, 5), dtype=np.float32)})
    made.identity = IDENTITY
    made.tokens.extend(list(tokens))
    made.logits = np.zeros(99, dtype=np.float32)
    return made


def load(path: Path) -> State:
    return load_state(path, IDENTITY, SHAPES)


def library(
    root: Path,
    disk: Disk | None = None,
    limit: int | None = 1 << 30,
    warnings: list[str] | None = None,
) -> Library:
    folder = root / "chats"
    budget = Budget(folder, root / "prefix", limit=limit, disk=disk)
    told = [] if warnings is None else warnings
    return Library(folder, budget, disk=disk, warn=told.append)


def talk(root: Path, count: int = 3, *, states: bool = True, disk: Disk | None = None) -> ChatLog:
    """Keep a conversation of some turns."""
    log = library(root, disk).new()
    log.plan(begin(log.id))
    for seed in range(count):
        step = turn(log.tree.head, seed)
        log.add(step)
        if states:
            log.save_state(step.id, "end", state(log.tree.tokens()))
    return log
