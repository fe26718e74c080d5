"""`rwkv cache`: the packed weights that were made on the way, and deleting them."""

from __future__ import annotations

import click

from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.errors import UsageError
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note, stdout_sink


@click.command(cls=Command)
@click.argument("action", required=False, type=click.Choice(["rm"]), metavar="[rm]")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="With rm: delete all of it.")
@click.option("--paths", is_flag=True, help="Print the files' paths instead of the table.")
@common_options
def cache(
    action: str | None,
    names: tuple[str, ...],
    everything: bool,
    paths: bool,
    quiet: bool,
    verbose: bool,
    debug: bool,
) -> None:
    """List the packed weights in the cache; with rm, delete those that are named.

    They are made when a model is used with --dtype int8 or int4, so that the next start is quick;
    what is deleted is made again when it is needed. A part of a name that only one has is enough.
    """
    from rwkv_cli.engine.packcache import cached_files, find_cached, packed_folder, remove_cached

    files = cached_files()
    if action == "rm":
        if everything == bool(names):
            raise UsageError("rm takes names, or --all", hint="rwkv cache rm --all")
        chosen = files if everything else [find_cached(name, files) for name in names]
        for file in chosen:
            remove_cached(file)
        if not quiet:
            freed = sum(file.nbytes for file in chosen)
            note(f"Deleted {len(chosen)} of {len(files)}, {freed / 1e6:,.1f} MB.")
        return
    if everything:
        raise UsageError("--all goes with rm", hint="rwkv cache rm --all")
    sink = stdout_sink()
    for file in files:
        line = str(file.path) if paths else f"{safe(file.name):<60} {file.nbytes / 1e6:>10,.1f} MB"
        sink.write(f"{line}\n".encode("utf-8", "surrogateescape"))
    if not files and not quiet:
        note(f"Nothing is kept in {safe(str(packed_folder()))}")
