"""`rwkv models`: which models -m knows by name."""

from __future__ import annotations

import click

from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.engine.modelfile import DEMO
from rwkv_cli.hub.names import default_model, installed
from rwkv_cli.places import models_folder
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note, stdout_sink


@click.command(cls=Command)
@click.option("--paths", is_flag=True, help="Print the files' paths instead of the table.")
@common_options
def models(paths: bool, quiet: bool, verbose: bool, debug: bool) -> None:
    """List the models that -m knows by name; * marks the one used when none is named.

    Weights files (.pth, .safetensors, .bin) in the models folder are installed; a part of a name
    that only one of them has is enough.
    """
    folder = models_folder()
    sink, default = stdout_sink(), default_model(folder)
    for name, path in {**installed(folder), "demo": DEMO}.items():
        if paths:
            sink.write(f"{path}\n".encode("utf-8", "surrogateescape"))
            continue
        mark = "*" if path == default else " "
        size = path.stat().st_size
        sink.write(f"{mark} {safe(name):<48} {size / 1e6:>10,.1f} MB\n".encode())
    if not quiet:
        note(
            f"To install a model, put its .pth, .safetensors or .bin file into {safe(str(folder))}"
        )
