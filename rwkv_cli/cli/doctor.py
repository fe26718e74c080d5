"""`rwkv doctor`: what this installation runs with, and what to do about what is missing."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable

import click

from rwkv_cli.cli import doctorcuda, doctorfiles, doctormachine
from rwkv_cli.cli.doctorprobe import Probe, asked
from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.cli.settings import collect
from rwkv_cli.errors import StorageError
from rwkv_cli.native import build as native_build
from rwkv_cli.native import library as native
from rwkv_cli.native.machine import default_threads, physical_cores
from rwkv_cli.native.sources import digest
from rwkv_cli.places import (
    cache_folder,
    data_folder,
    hub_cache_folder,
    named_native_library,
)
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDOUT, is_terminal, note, stdout_sink, terminal_width
from rwkv_cli.render.tables import hanging
from rwkv_cli.version import __version__

_INDENT = 14
_BUILD = "rwkv doctor --build"


@click.command(cls=Command)
@click.option("--build", is_flag=True, help="Compile the native library into the cache folder.")
@click.option("--torch", "ask_torch", is_flag=True, help="Import torch, and ask it for devices.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@common_options
def doctor(
    build: bool, ask_torch: bool, as_json: bool, quiet: bool, verbose: bool, debug: bool
) -> None:
    """Tell what this installation runs with, and what to do about what is missing.

    --build compiles the native library, which makes models on a CPU faster than torch does, if the
    package was installed without it. It needs a C++17 compiler: g++ or clang++.
    """
    if build:
        _build(quiet=quiet)
    probes: dict[str, Callable[[], Probe]] = {
        "program": _program,
        "engine": _engine,
        "library": _library,
        "instructions": _instructions,
        "threads": _threads,
        "memory": doctormachine.memory,
        "compiler": _compiler,
        "torch": doctorcuda.torch_devices if ask_torch else doctorcuda.torch_metadata,
        "cuda": doctorcuda.cuda,
        "nvrtc": doctorcuda.compiler,
        "kernels": doctorcuda.kernels,
        "models": doctorfiles.models,
        "registry": doctorfiles.registry,
        "data": lambda: doctorfiles.folder(data_folder, "RWKV_DATA_DIR"),
        "cache": lambda: doctorfiles.folder(cache_folder, "RWKV_CACHE_DIR"),
        "config": doctorfiles.config,
        "download": doctormachine.download,
        "huggingface": lambda: doctorfiles.hugging_face(hub_cache_folder()),
        "terminal": doctormachine.terminal,
    }
    found = {name: asked(probe) for name, probe in probes.items()}
    if as_json:
        text = json.dumps(
            {name: {"result": p.result, "next": p.step, **p.facts} for name, p in found.items()}
        )
    else:
        text = hanging(
            [row for name, probe in found.items() for row in _rows(name, probe)],
            _INDENT,
            terminal_width() if is_terminal(STDOUT) else None,
        ).rstrip()
    stdout_sink(wraps=False).write(text.encode("utf-8", "replace") + b"\n")


def _build(*, quiet: bool) -> None:
    """Compile the library and make sure that it is the one in use.

    Raises:
        StorageError: There is no compiler, or it failed, or what it made cannot be used.
    """
    found = native.find()
    if found.library is not None and found.why is None:
        if not quiet:
            note(f"there is a native library already: {safe(str(found.path))}")
        return
    compiler = native_build.find_compiler()
    if compiler and not quiet:
        note(f"compiling with {safe(' '.join(compiler))} ...")
    path = native_build.build()
    native.forget()
    found = native.find()
    if found.library is None:
        raise StorageError(f"the library was built, but cannot be used: {found.why}")
    if not quiet:
        note(f"built {safe(str(path))}")


def _rows(name: str, probe: Probe) -> list[tuple[str, str]]:
    """Give a finding, and below it what to do."""
    step = [("", f"-> {probe.step}")] if probe.step else []
    return [(name, probe.result), *step]


def _program() -> Probe:
    python, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    facts = {"version": __version__, "python": python, "system": system}
    return Probe(f"rwkv {__version__}, Python {python}, {system}", None, facts)


def _engine() -> Probe:
    if native.is_available():
        return Probe("native: models on a CPU run in the C++ library", None, {"engine": "native"})
    what = "torch: models on a CPU are slower than in the native library"
    return Probe(what, _next_library_step(), {"engine": "torch"})


def _library() -> Probe:
    found = native.find()
    facts = {
        "path": str(found.path) if found.path else None,
        "interface": native.ABI,
        "reason": found.why,
    }
    if found.library is None:
        return Probe(f"none: {found.why}", _next_library_step(), facts)
    what = f"{found.path} (interface {native.ABI})"
    return Probe(what if found.why is None else f"{what}; passed over: {found.why}", None, facts)


def _next_library_step() -> str:
    if named_native_library() is not None:
        return "unset RWKV_NATIVE_LIBRARY, or set it to a library of this version"
    if native_build.find_compiler() is None:
        return f"install g++ or clang++, then {_BUILD}"
    return _BUILD


def _instructions() -> Probe:
    if not native.is_available():
        return Probe("known when there is a native library", None, {"sets": [], "chosen": None})
    from rwkv_cli.native.model import instruction_sets

    sets = instruction_sets()
    what = f"{sets[-1]} is used; this CPU runs {', '.join(sets)}"
    return Probe(what, None, {"sets": sets, "chosen": sets[-1]})


def _threads() -> Probe:
    default, cores = default_threads(), physical_cores()
    chosen = collect({}).threads
    facts = {"default": default, "physical_cores": cores, "chosen": chosen}
    count = chosen or default
    why = "set by RWKV_THREADS or the config file" if chosen else "-t N takes others"
    cores_text = f"{cores} physical core{'' if cores == 1 else 's'}"
    return Probe(f"{count} of {cores_text}; {why}", None, facts)


def _compiler() -> Probe:
    command = native_build.find_compiler()
    facts = {"command": command, "sources": digest()}
    if command:
        return Probe(" ".join(command), None, facts)
    return Probe("none: neither CXX nor c++, g++, clang++ on the path names one", None, facts)
