"""`rwkv convert`: a model in another format or precision, or with a LoRA merged into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rwkv_cli.cli.converttarget import check_target, kind_of, target_of
from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.engine.modelfile import ModelFile, open_model
from rwkv_cli.files import remove_leftovers
from rwkv_cli.hub.names import resolve
from rwkv_cli.places import models_folder
from rwkv_cli.render.progress import Progress, counted
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note, stdout_sink

if TYPE_CHECKING:
    from rwkv_cli.engine.converting import Outgoing
    from rwkv_cli.engine.lorafile import Lora


@click.command(cls=Command)
@click.argument("model")
@click.option("--to", metavar="FORMAT", help="pth, safetensors, hf or packed; else as -o tells.")
@click.option("--dtype", metavar="DTYPE", help="int8, int4, bf16, fp16 or fp32; else the model's.")
@click.option(
    "--lora", multiple=True, metavar="FILE[:ALPHA]",
    help="Merge a LoRA, PiSSA or DiSHA file; ALPHA is its rank unless given.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="Else a new name among the models.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("-t", "--threads", type=click.IntRange(1, 256), metavar="N", help="Threads.")
@common_options
def convert(
    model: str,
    to: str | None,
    dtype: str | None,
    lora: tuple[str, ...],
    output: str | None,
    force: bool,
    threads: int | None,
    **common: bool,
) -> None:
    """Write a model in another format or precision; prints the path of it.

    \b
    rwkv convert 1.5b --dtype int8             half the memory, little lost
    rwkv convert model.safetensors -o model.pth
    rwkv convert model.pth --to hf -o FOLDER   for Hugging Face transformers
    rwkv convert model.pth --lora mine.pth:32 -o mine-merged.pth

    A --dtype without --to packs the model for this program: such files start
    without being read, on CPUs and, by the CUDA kernels, on NVIDIA cards. int4
    is for models of 3B and more: small ones lose much of their reasoning.
    """
    from rwkv_cli.engine.lora import with_loras
    from rwkv_cli.engine.lorafile import lora_named

    quiet = common["quiet"]
    kind = kind_of(to, dtype, output)
    loras = [lora_named(text) for text in lora]
    source = resolve(model, models_folder())
    base = open_model(source)
    file = with_loras(base, loras)
    target = target_of(source, loras, kind, dtype, output)
    check_target(target, [source, *(one.path for one in loras)], kind, force=force)
    remove_leftovers(target.parent)
    if kind == "packed":
        told = _packed(file, dtype or "", target, threads, quiet=quiet)
    else:
        told = _written(file, kind, dtype, target, quiet=quiet)
    if not quiet:
        for line in [*told, *_merges(base, file, loras)]:
            note(safe(line))
    stdout_sink().write(f"{target}\n".encode("utf-8", "surrogateescape"))


def _packed(
    file: ModelFile, dtype: str, target: Path, threads: int | None, *, quiet: bool
) -> list[str]:
    """Pack with a progress bar: what there is to say of it."""
    from rwkv_cli.engine.packing import write_packed
    from rwkv_cli.native.machine import default_threads
    from rwkv_cli.native.pool import Pool

    pool = Pool(threads or default_threads())
    total = sum(raw.nbytes for raw in file.checkpoint.tensors.values())
    kept = _with_progress(
        f"packing {target.name}",
        total,
        lambda count: write_packed(file, dtype, target, pool, count),
        quiet=quiet,
    )
    told = [f"Packed as {dtype}: {counted(len(file.checkpoint.tensors), 'tensor')}, "
            f"{target.stat().st_size:,} bytes."]  # fmt: skip
    if kept:
        told.append(
            f"{counted(len(kept), 'tensor')} {'stays' if len(kept) == 1 else 'stay'} in 16 bits, "
            f"since {dtype} would lose too much there; rwkv info tells which."
        )
    return told


def _written(
    file: ModelFile, kind: str, dtype: str | None, target: Path, *, quiet: bool
) -> list[str]:
    """Write plain tensors with a progress bar: what there is to say of it."""
    from rwkv_cli.engine.converting import outgoing, write_model

    model = outgoing(file, kind, dtype)
    _with_progress(
        f"writing {target.name}",
        model.nbytes,
        lambda count: write_model(file, model, target, count),
        quiet=quiet,
    )
    return [_summary(file, model), *_losses(file, model, target)]


def _with_progress(
    label: str,
    total: int,
    work: Callable[[Callable[[int], None]], list[str] | None],
    *,
    quiet: bool,
) -> list[str]:
    """Do some work that counts its bytes: what it returns."""
    progress = Progress(label, "bytes", total, enabled=not quiet)
    done = 0

    def count(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress.update(done)

    try:
        return work(count) or []
    finally:
        progress.finish()


def _summary(file: ModelFile, model: Outgoing) -> str:
    """Say what was written, and what of it differs from the model."""
    name = {"hf": "Hugging Face folder"}.get(model.kind, model.kind)
    changes = [
        f"{counted(count, 'tensor')} {what}"
        for count, what in (
            (model.rounded, "converted"),
            (model.decoded, "unpacked from quantized ones"),
            (model.renamed, "renamed"),
            (model.reshaped, "reshaped"),
        )
        if count
    ]
    same = "" if model.rounded or model.decoded or file.merged else "every number as it was"
    changed = ", ".join(filter(None, [*changes, same]))
    return (
        f"Wrote {name}: {counted(len(model.tensors), 'tensor')}, {' and '.join(model.dtypes)}, "
        f"{model.nbytes:,} bytes" + (f"; {changed}." if changed else ".")
    )


def _losses(file: ModelFile, model: Outgoing, target: Path) -> list[str]:
    """Say what the new file cannot tell of the model, and how to tell it."""
    if model.kind == "hf":
        if (target / "tokenizer.json").exists():
            return []
        return ["The folder has no tokenizer: transformers needs that of a published RWKV model."]
    made = open_model(target)
    told = []
    if made.tokenizer != file.tokenizer:
        told.append(f"The file does not tell its tokenizer: --tokenizer {file.tokenizer}")
    if made.template != file.template:
        told.append(f"Its name does not tell its chat format: --template {file.template}")
    return told


def _merges(base: ModelFile, file: ModelFile, loras: Sequence[Lora]) -> list[str]:
    """Say what was merged."""
    from rwkv_cli.engine.lorafile import described

    if not loras:
        return []
    before, after = base.checkpoint.tensors, file.checkpoint.tensors
    changed = sum(before.get(name) is not raw for name, raw in after.items())
    return [f"Merged into {counted(changed, 'tensor')}:", *(f"  {described(one)}" for one in loras)]
