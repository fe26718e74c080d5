"""Whether the CUDA kernels keep to what they may use on each architecture: `make cuda-check`.

Compiles native/cuda/rwkv.cu with nvcc and compares with budget.txt beside this file. A kernel must
not use local memory, by spills or otherwise, nor static shared memory; it must not take more
registers than the table says, nor load more narrowly. `--write` writes the table anew; numbers
choose architectures. Nothing is run, so that no GPU is needed; without nvcc it only says so.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
TYPES = "-DRWKV_TYPES=28"  # of an int4 model, the most that is compiled together: fp16, int8, int4
SOURCE = Path(__file__).resolve().parents[2] / "cuda" / "rwkv.cu"
TABLE = Path(__file__).with_name("budget.txt")
HEADER = """\
# Registers of a thread of each kernel on each architecture, and the width in bits of its widest
# load from global memory. Written by native/test/cuda/budget.py --write, with nvcc {version}.
"""


@dataclass
class Use:
    """What a kernel uses on one architecture."""

    registers: int = 0
    local: int = 0  # bytes of its stack and of its spills, or the instructions on them
    shared: int = 0  # static, in bytes
    width: int = 0  # of the widest load, in bits; 0 if unknown


Uses = dict[str, Use]  # by kernel
_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_FUNCTION = re.compile(r"^\s*Function : (\w+)")
_LOAD = re.compile(r"\bLDG(\.[\w.]+)")
_LOCAL = re.compile(r"\b(LDL|STL)\b")


def read_ptxas(lines: Iterable[str]) -> Uses:
    """Reads what `ptxas -v` tells about each kernel."""
    uses: Uses = {}
    current = Use()
    for line in lines:
        if entry := _ENTRY.search(line):
            current = uses[entry[1]] = Use()
        if stack := _STACK.search(line):
            current.local += sum(map(int, stack.groups()))
        if registers := _REGISTERS.search(line):
            current.registers = int(registers[1])
            shared = _SHARED.search(line)
            current.shared = int(shared[1]) if shared else 0
    return uses


def read_sass(lines: Iterable[str], uses: Uses) -> None:
    """Adds what the instructions of each kernel tell, as cuobjdump lists them."""
    current = Use()
    for line in lines:
        if function := _FUNCTION.match(line):
            current = uses.setdefault(function[1], Use())
        elif load := _LOAD.search(line):
            named = [int(part) for part in load[1].split(".") if part.isdigit()]
            current.width = max(current.width, *named, 32)
        elif _LOCAL.search(line):
            current.local += 1


# --- the table ----------------------------------------------------------------------------------


@dataclass
class Budget:
    """What a kernel may use: registers by architecture, and how widely it loads at least."""

    registers: dict[int, int]
    width: int


def read_table(text: str) -> tuple[str, dict[str, Budget]]:
    """Gives the version of nvcc that the table is of, and each kernel's row."""
    version = re.search(r"nvcc (\S+)\.$", text, re.MULTILINE)
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    architectures = [int(name) for name in lines[0][1:-1]] if lines else []
    rows = {}
    for name, *numbers in lines[1:]:
        *registers, width = map(int, numbers)
        rows[name] = Budget(dict(zip(architectures, registers, strict=True)), width)
    return version[1] if version else "", rows


def table(found: dict[int, Uses], before: dict[str, Budget], version: str) -> str:
    """Writes the table; a width that is not known stays as it was."""
    names = sorted(set().union(*found.values()), key=_by_number)
    longest = max(map(len, names), default=0)
    header = "".join(f"{architecture:5}" for architecture in found)
    lines = [f"{'kernel':{longest}}{header}  load"]
    for name in names:
        uses = [of[name] for of in found.values()]
        width = min(use.width for use in uses) or (before[name].width if name in before else 0)
        registers = "".join(f"{use.registers:5}" for use in uses)
        lines.append(f"{name:{longest}}{registers}{width:6}")
    return HEADER.format(version=version) + "\n".join(lines) + "\n"


def complaints(found: dict[int, Uses], rows: dict[str, Budget], same_nvcc: bool) -> list[str]:
    """Lists what is not as it should be; registers count only under the table's own nvcc."""
    wrong = []
    for architecture, uses in found.items():
        for name in sorted(uses.keys() | rows.keys(), key=_by_number):
            where = f"{name} on sm_{architecture}"
            if name not in uses:
                wrong.append(f"{where}: is in the table only")
                continue
            use, row = uses[name], rows.get(name)
            if use.local:
                wrong.append(
                    f"{where}: uses local memory (a spill, or an array that needs a stack)"
                )
            if use.shared:
                wrong.append(f"{where}: has {use.shared} bytes of static shared memory")
            if row is None:
                wrong.append(f"{where}: is not in the table")
                continue
            allowed = row.registers.get(architecture, 0)
            if same_nvcc and use.registers > allowed:
                wrong.append(f"{where}: takes {use.registers} registers, not {allowed}")
            if 0 < use.width < row.width:
                wrong.append(f"{where}: loads {use.width} bits at once, not {row.width}")
    return wrong


def _by_number(name: str) -> list[str | int]:
    """An order in which dot_16 comes after dot_2; texts and numbers alternate."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


# --- the compiler -------------------------------------------------------------------------------


def compiled(nvcc: str, cuobjdump: str | None, architecture: int) -> Uses:
    """Compiles for one architecture and tells what the kernels use there.

    Raises:
        RuntimeError: if it does not compile, or not without a warning.
    """
    with tempfile.TemporaryDirectory() as folder:
        cubin = str(Path(folder) / "rwkv.cubin")
        flags = [
            "-std=c++17",
            "-fmad=false",
            TYPES,
            f"-arch=sm_{architecture}",
            "-cubin",
            "-Xptxas",
            "-v",
        ]
        flags += ["-Werror", "all-warnings"]
        uses = read_ptxas(_run([nvcc, *flags, "-o", cubin, str(SOURCE)]).splitlines())
        if cuobjdump:
            read_sass(_run([cuobjdump, "-sass", cubin]).splitlines(), uses)
    return uses


def _run(command: list[str]) -> str:
    done = subprocess.run(  # noqa: S603 - the compiler is the user's own
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


def _disassembler() -> str | None:
    """Find cuobjdump on the path or among this Python's packages, whose nvdisasm lies beside it."""
    for folder in map(Path, sys.path):
        for found in sorted(folder.glob("nvidia/*/bin/cuobjdump")):
            os.environ["PATH"] += os.pathsep + str(found.parent)
    return shutil.which("cuobjdump")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def measured(nvcc: str, architectures: list[int]) -> dict[int, Uses]:
    """Compiles for each architecture, two at a time."""
    cuobjdump = _disassembler()
    if cuobjdump is None:
        _say("The kernels' instructions were not looked at: there is no cuobjdump.")
    with ThreadPoolExecutor(2) as pool:
        uses = pool.map(lambda number: compiled(nvcc, cuobjdump, number), architectures)
        return dict(zip(architectures, uses, strict=True))


def main() -> int:
    """Checks, or with --write writes; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("architectures", nargs="*", type=int)
    parser.add_argument("--write", action="store_true", help="write the table anew, of all")
    asked = parser.parse_args()
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        _say("The CUDA kernels were not compiled: there is no nvcc.")
        return 0
    chosen = [] if asked.write else asked.architectures
    try:
        found = measured(nvcc, chosen or list(ARCHITECTURES))
    except RuntimeError as error:
        _say(str(error))
        return 1
    release = re.search(r"release ([\d.]+)", _run([nvcc, "--version"]))
    version = release[1] if release else "unknown"
    of, rows = read_table(TABLE.read_text()) if TABLE.exists() else ("", {})
    if asked.write:
        TABLE.write_text(table(found, rows, version))
        of, rows = read_table(TABLE.read_text())
    if of != version:
        _say(f"Registers were not compared: the table is of nvcc {of}, this one is {version}.")
    wrong = complaints(found, rows, of == version)
    for line in wrong:
        _say(line)
    _say(f"{len(rows)} kernels on {len(found)} architectures, {len(wrong)} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
