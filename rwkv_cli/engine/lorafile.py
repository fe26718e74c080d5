"""What a file of trained changes to a model holds, told from its header; no weights are read.

As RWKV-LM-LoRA and RWKV-PEFT write them: only what was trained, `X.lora_A` and `X.lora_B` for the
matrix `X.weight` (LoRA), the same with `X.init_lora_A` and `X.init_lora_B`, in the same file or in
one of their own (PiSSA), `X.disha` or `X.bone` (DiSHA), and whole tensors that were trained beside
them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.checkpoints.tensors import RawTensor
from rwkv_cli.engine.identity import fingerprint
from rwkv_cli.errors import RefusedError, UsageError
from rwkv_cli.places import expanded

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

# Trainers put the names of their wrappers in front.
_WRAPPED = re.compile(r"^.*?(?=(?:blocks\.\d|emb\.|head\.|ln_out\.))")
_PART = re.compile(r"^(.+)\.((?:init_)?lora_[AB]|disha|bone)(?:\.default)?(?:\.weight)?$")
_TUNED = ".att.time_state"

_LORA, _INIT = {"lora_A", "lora_B"}, {"init_lora_A", "init_lora_B"}


@dataclass(frozen=True, slots=True)
class Lora:
    """A file to merge.

    Attributes:
        path: The file.
        alpha: What a LoRA was trained with; None takes its rank, so that it counts as it is.
    """

    path: Path
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class LoraFile:
    """An open file of trained changes.

    Attributes:
        lora: Which file, and its alpha.
        parts: For the name of each changed matrix its low-rank or block-wise parts, by their kind:
            "lora_A", "lora_B", "init_lora_A", "init_lora_B", "disha" or "bone".
        whole: Tensors that take the place of the model's, by name.
        digest: Tells this file from others, as a fingerprint does.
    """

    lora: Lora
    parts: Mapping[str, Mapping[str, RawTensor]]
    whole: Mapping[str, RawTensor]
    digest: str

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self.lora.path

    @property
    def method(self) -> str:
        """What people call the method that it was trained with."""
        kinds = {kind for parts in self.parts.values() for kind in parts}
        if kinds & _INIT:
            return "PiSSA"
        return "LoRA" if kinds & _LORA else "DiSHA" if kinds else "whole tensors"

    @property
    def begins_only(self) -> bool:
        """Whether it holds nothing but what the training of a PiSSA began with."""
        kinds = {kind for parts in self.parts.values() for kind in parts}
        return bool(kinds) and kinds <= _INIT


def lora_named(text: str) -> Lora:
    """Read `FILE` or `FILE:ALPHA`.

    Raises:
        NotFoundError: It names the home of someone who has none.
        UsageError: There is no file name, or alpha is not finite.
    """
    if not text:
        raise UsageError("--lora needs the name of a file")
    name, colon, number = text.rpartition(":")
    whole = expanded(text)
    if whole.exists() or not colon:
        return Lora(whole)
    try:
        alpha = float(number)
    except ValueError:
        return Lora(whole)
    if not math.isfinite(alpha) or not name:
        raise UsageError(f"--lora {text}: alpha must be a number such as 32, after a file")
    return Lora(expanded(name), alpha)


def has_parts(names: Iterable[str]) -> bool:
    """Tell by the names of its tensors whether a file is a LoRA, PiSSA or DiSHA."""
    return any(map(_PART.match, names))


def read_lora(lora: Lora) -> LoraFile:
    """Open a file of trained changes.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is damaged, or something else.
    """
    checkpoint = open_checkpoint(lora.path)
    parts: dict[str, dict[str, RawTensor]] = {}
    whole: dict[str, RawTensor] = {}
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype not in FLOATS:
            raise RefusedError(f"{lora.path}: tensor {name} has type {tensor.dtype}")
        plain = _WRAPPED.sub("", name)
        match = _PART.match(plain)
        if match:
            parts.setdefault(f"{match[1]}.weight", {})[match[2]] = tensor
        else:
            whole[plain] = tensor
    _check_kind(lora.path, parts, whole)
    for target, found in parts.items():
        _check_partners(lora.path, target, found)
    _check_beginnings(lora.path, parts)
    return LoraFile(lora, parts, whole, fingerprint(checkpoint.tensors))


def _check_kind(path: Path, parts: Mapping[str, object], whole: Mapping[str, RawTensor]) -> None:
    """Refuse what other flags are for.

    Raises:
        RefusedError: It is a tuned state or a whole model.
    """
    if parts:
        return
    if all(name.endswith(_TUNED) for name in whole):
        raise RefusedError(
            f"{path}: is a tuned initial state, not a LoRA",
            hint=f"rwkv state import {path} NAME, then --state NAME",
        )
    if {"emb.weight", "head.weight", "blocks.0.att.key.weight"} <= whole.keys():
        raise RefusedError(f"{path}: is a whole model, not a LoRA", hint=f"-m {path}")


def _check_partners(path: Path, target: str, found: Mapping[str, RawTensor]) -> None:
    """Check that the parts of a matrix are those of one method.

    Raises:
        RefusedError: One is missing or too many.
    """
    kinds, stem = set(found), target.removesuffix(".weight")
    for pair in (_LORA, _INIT):
        if len(kinds & pair) == 1:
            there, missing = *(kinds & pair), *(pair - kinds)
            raise RefusedError(f"{path}: {stem}.{there} is there, {stem}.{missing} is missing")
    if len(kinds & {"disha", "bone"}) + bool(kinds & (_LORA | _INIT)) > 1:
        raise RefusedError(f"{path}: {stem} is changed in two ways: {', '.join(sorted(kinds))}")


def _check_beginnings(path: Path, parts: Mapping[str, Mapping[str, RawTensor]]) -> None:
    """Check that what a PiSSA began with is there for every matrix that it trained, or alone.

    Raises:
        RefusedError: It is there for some.
    """
    low = {target for target, found in parts.items() if "lora_A" in found}
    begun = {target for target, found in parts.items() if "init_lora_A" in found}
    if begun and low and low != begun:
        odd = min(low ^ begun).removesuffix(".weight")
        lacking = "init_lora_A" if f"{odd}.weight" in low else "lora_A"
        raise RefusedError(f"{path}: is a PiSSA, but {odd}.{lacking} is missing")


def described(lora: Lora) -> str:
    """Say in a few words what a file is, and how much it counts.

    Raises:
        RwkvError: As `read_lora`.
    """
    one = read_lora(lora)
    if one.method != "LoRA":
        return f"{one.method} {lora.path.name}"
    if lora.alpha is not None:
        return f"LoRA {lora.path.name}, alpha {lora.alpha:g}"
    return (
        f"LoRA {lora.path.name}, its alpha taken to be its rank, since the file does not say it "
        f"(--lora {lora.path}:ALPHA)"
    )
