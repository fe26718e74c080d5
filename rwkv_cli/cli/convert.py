"""`rwkv convert`: a model in another precision, as a file that starts without being read."""

from __future__ import annotations

from pathlib import Path

import click

from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.engine.modelfile import DEMO, ModelFile, open_model
from rwkv_cli.errors import StorageError, UsageError
from rwkv_cli.files import reason
from rwkv_cli.hub.names import resolve
from rwkv_cli.places import expanded, models_folder
from rwkv_cli.render.progress import Progress, counted
from rwkv_cli.render.streams import note, stdout_sink

DTYPES = ("int8", "int4", "bf16", "fp16", "fp32")


@click.command(cls=Command)
@click.argument("model")
@click.option("--dtype", required=True, metavar="DTYPE", help="int8, int4, bf16, fp16 or fp32.")
@click.option("-o", "--output", metavar="FILE", help="Else NAME-DTYPE among the models.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("-t", "--threads", type=click.IntRange(1, 256), metavar="N", help="Threads.")
@common_options
def convert(
    model: str,
    dtype: str,
    output: str | None,
    force: bool,
    threads: int | None,
    quiet: bool,
    verbose: bool,
    debug: bool,
) -> None:
    """Pack a model in another precision; prints the path of the new file.

    int8 takes about half of the memory of bf16 and loses next to nothing. int4 takes about a
    quarter, for models of 3B and more: small ones lose much of their reasoning. Packed files run on
    CPUs and, by the CUDA kernels, on NVIDIA cards.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    source = resolve(model, models_folder())
    file = open_model(source)
    target = _target(source, dtype, output)
    if target.exists() and not force:
        raise UsageError(f"{target} exists", hint="--force replaces it")
    kept = _pack(file, dtype, target, threads, quiet=quiet)
    if kept and not quiet:
        note(
            f"{counted(len(kept), 'tensor')} {'stays' if len(kept) == 1 else 'stay'} in 16 bits, "
            f"since {dtype} would lose too much there; rwkv info tells which."
        )
    stdout_sink().write(f"{target}\n".encode("utf-8", "surrogateescape"))


def _target(source: Path, dtype: str, output: str | None) -> Path:
    """Choose the file to write, and make its folder when it is our own.

    Raises:
        UsageError: It is the original.
        StorageError: The folder cannot be made.
    """
    stem = "demo" if source == DEMO else source.stem
    name = f"{stem}-{dtype}.safetensors"
    if output is None:
        folder = models_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make {folder}: {reason(error)}", hint="name a file with -o FILE"
            ) from error
        return folder / name
    target = expanded(output)
    if target.is_dir():
        target /= name
    if target.exists() and target.samefile(source):
        raise UsageError(f"{target} is the original", hint="name another file with -o FILE")
    return target


def _pack(
    file: ModelFile, dtype: str, target: Path, threads: int | None, *, quiet: bool
) -> list[str]:
    """Pack with a progress bar: the names of the tensors that stayed in 16 bits."""
    from rwkv_cli.engine.packing import write_packed
    from rwkv_cli.native.machine import default_threads
    from rwkv_cli.native.pool import Pool

    pool = Pool(threads or default_threads())
    total = sum(raw.nbytes for raw in file.checkpoint.tensors.values())
    progress = Progress(f"packing {target.name}", "bytes", total, enabled=not quiet)
    done = 0

    def count(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress.update(done)

    try:
        return write_packed(file, dtype, target, pool, count)
    finally:
        progress.finish()
