"""Help pages, completions and `info`: what must answer at once, and be up to date."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from cli.conftest import Cli
from cli.running import rwkv

from rwkv_cli.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
SCRIPTS = {"bash": "rwkv.bash", "zsh": "_rwkv"}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """docs/generate.py of this checkout."""
    path = ROOT / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate_docs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_up_to_date(generator: ModuleType) -> None:
    for path, text in generator.generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `make install generated`"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_ready_pages_are_what_the_commands_say(
    cli: Cli, generator: ModuleType, flag: str
) -> None:
    for name, page in generator.pages().items():
        arguments = [] if name == "rwkv" else [name]
        assert cli(*arguments, flag).out.decode() == page
        assert cli("help", *arguments).out.decode() == page


def test_pages_fit_a_small_terminal(generator: ModuleType) -> None:
    for page in generator.pages().values():
        assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [[], ["-h"], ["--help"], ["help"], *([name, "--help"] for name in COMMANDS), ["help", "chat"]],
)
def test_the_program_answers_like_its_pages(
    env: dict[str, str], generator: ModuleType, arguments: list[str]
) -> None:
    names = [a for a in arguments if a in COMMANDS]
    result = rwkv(arguments, env)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode() == generator.pages()[names[0] if names else "rwkv"]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["generate", "--help"]])
def test_help_and_version_import_nothing_heavy(env: dict[str, str], arguments: list[str]) -> None:
    code = (
        f"import sys; from rwkv_cli.__main__ import main; sys.argv[1:] = {arguments!r}; main();"
        "heavy = {'torch', 'numpy', 'prompt_toolkit', 'click', 'pydantic', 'platformdirs'};"
        "sys.stderr.write(' '.join(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert result.stdout
    assert result.stderr == b""


@pytest.mark.parametrize("command", ["models", "completion bash", "info demo", "generate", "chat"])
def test_torch_is_imported_only_to_run_a_model(env: dict[str, str], command: str) -> None:
    code = (
        f"import sys; from rwkv_cli.cli.app import run; run({command.split()!r});"
        "assert not {'torch', 'prompt_toolkit', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )


# Completion


@pytest.mark.parametrize("shell", SCRIPTS)
def test_completion_scripts_are_well_formed(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    script = ROOT / "completions" / SCRIPTS[shell]
    subprocess.run([shell, "-n", script], check=True, timeout=30)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("rwkv gen", {"generate"}),
        ("rwkv generate --temper", {"--temperature"}),
        ("rwkv chat --no", {"--no-save", "--no-cache"}),
        ("rwkv completion z", {"zsh"}),
        ("rwkv models ''", {"ls", "show", "default", "alias", "add", "verify", "rm"}),
        ("rwkv models --", None),
    ],
)
def test_bash_completes_commands_flags_and_choices(
    cli: Cli, tmp_path: Path, line: str, found: set[str] | None
) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    script = tmp_path / "rwkv.bash"
    script.write_bytes(cli("completion", "bash").out)
    words = line.split()
    test = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _rwkv;"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(["bash", "-c", test], capture_output=True, check=True, cwd=tmp_path)
    got = set(result.stdout.decode().split())
    assert got == found if found else {"--help", "--paths"} <= got


# info


def test_a_huge_file_is_described_at_once(env: dict[str, str], tmp_path: Path) -> None:
    tensors = _shapes(layers=24, width=1024, vocab=65536)
    header: dict[str, object] = {}
    offset = 0
    for name, shape in tensors.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    assert path.stat().st_size > 1_500_000_000
    rwkv(["info", path], env)  # the first run may have to read the program itself
    began = time.monotonic()
    result = rwkv(["info", "--json", path], env)
    seconds = time.monotonic() - began
    path.unlink()
    facts = json.loads(result.stdout)
    assert (facts["version"], facts["layers"], facts["width"]) == ("v7", 24, 1024)
    assert facts["tokenizer"] == "world"
    assert seconds < 0.5 * _slowness()


def _slowness() -> float:
    """How much slower than usual this machine starts a program just now."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    return max(1.0, (time.monotonic() - began) / 0.15)


def _shapes(layers: int, width: int, vocab: int) -> dict[str, tuple[int, ...]]:
    """Name the tensors of an RWKV-7 with their shapes."""
    from oracle.weights import Shape, random_model

    small = random_model("v7", Shape(layers=1, heads=2, size=64, ffn=512, vocab=96, rank=8))
    sizes = {128: width, 512: 4 * width, 96: vocab, 2: width // 64}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in small.items():
        shape = tuple(sizes.get(int(length), int(length)) for length in tensor.shape)
        for layer in range(layers if name.startswith("blocks.0.") else 1):
            if layer == 0 or ".ln0." not in name:
                shapes[name.replace("blocks.0.", f"blocks.{layer}.")] = shape
    return shapes


@pytest.mark.parametrize(
    ("file", "facts"),
    [
        (
            "tiny-rwkv-7v0-834K-FP32.bin",
            {"format": "rwkv.cpp", "version": "v7", "tokenizer": "bytes", "vocabulary": 256},
        ),
        (
            "tiny-rwkv-4v0-660K-FP32.bin",
            {"format": "rwkv.cpp", "version": "v4", "tokenizer": "bytes", "vocabulary": 256},
        ),
    ],
)
def test_trained_models_are_described(
    cli: Cli, shared_data: Path, file: str, facts: dict[str, object]
) -> None:
    told = json.loads(cli("info", "--json", shared_data / file).out)
    assert {key: told[key] for key in facts} == facts
    assert told["file_bytes"] == (shared_data / file).stat().st_size


def test_a_quantized_file_is_told_with_its_codes(cli: Cli, shared_data: Path) -> None:
    told = json.loads(cli("info", "--json", shared_data / "tiny-rwkv-7v0-834K-Q5_1.bin").out)
    assert told["weights"] == ["F32", "Q5_1"]


def test_the_demo_is_described(cli: Cli) -> None:
    told = json.loads(cli("info", "demo", "--json").out)
    assert (told["version"], told["tokenizer"], told["template"]) == ("v7", "demo", "demo")
    shown = cli("info", "demo").out.decode()
    assert f"{told['parameters']:,}" in shown
    assert "size" in shown


def test_a_state_is_described(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    state = tmp_path / "x.rwkvstate"
    cli("generate", "-m", tiny, "-N", "3", "--ban", "0", "hi", "--save-state", state)
    told = json.loads(cli("info", "--json", state).out)
    assert (told["format"], told["tokens"]) == ("rwkvstate", 5)
    assert cli("info", tmp_path / "none.rwkvstate").code == 3


def test_a_tensors_name_cannot_drive_a_terminal(cli: Cli, tmp_path: Path, tiny: Path) -> None:
    nasty = tmp_path / "\x1b]0;title\x07.safetensors"
    nasty.write_bytes(tiny.read_bytes())
    result = cli("info", nasty, "--tensors")
    assert result.code == 0
    assert b"\x1b" not in result.out


# models


def test_models_lists_what_can_be_named(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RWKV_MODELS_DIR", str(tmp_path))
    alone = cli("models")
    assert "* demo" in alone.out.decode()
    assert str(tmp_path) in alone.err
    (tmp_path / "mine.safetensors").symlink_to(tiny)
    shown = cli("models").out.decode().splitlines()
    assert shown[0].split()[:2] == ["*", "mine"]
    assert len(shown) == 2
    assert str(tmp_path / "mine.safetensors") in cli("models", "--paths").out.decode()


def test_a_model_whose_file_is_gone_hides_no_other(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RWKV_MODELS_DIR", str(tmp_path))
    (tmp_path / "gone.pth").symlink_to(tmp_path / "nowhere")
    result = cli("models")
    assert result.code == 0
    assert "demo" in result.out.decode()
