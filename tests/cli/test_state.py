"""Named states: made once, fed, asked, proven, moved; never overwritten unasked."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from cli.conftest import Cli
from safetensors.numpy import save_file

import rwkv_cli
from rwkv_cli.engine.tuned import read_tuned
from rwkv_cli.errors import MismatchError, RefusedError

ASK = ("--temperature", "0", "-N", "6", "--presence", "0", "--frequency", "0")


def _file(env: dict[str, str], name: str) -> Path:
    return Path(env["RWKV_DATA_DIR"]) / "states" / f"{name}.rwkvstate"


def test_a_state_answers_as_if_its_text_had_been_read(
    cli: Cli, env: dict[str, str], tiny: Path
) -> None:
    assert cli("state", "make", "doc", "-m", tiny, stdin=b"some words").code == 0
    assert stat.S_IMODE(_file(env, "doc").stat().st_mode) == 0o600
    whole = cli("generate", "-m", tiny, *ASK, "some words and more").out
    assert cli("generate", "-m", tiny, *ASK, "--state", "doc", " and more").out == whole


def test_made_in_parts_equals_made_at_once(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n")
    cli("state", "make", "whole", "-m", tiny, stdin=b"one\ntwo\nthree\n")
    cli("state", "make", "parts", "-m", tiny, "-f", tmp_path / "a.txt")
    assert cli("state", "feed", "parts", "-m", tiny, stdin=b"three\n").code == 0
    model = rwkv_cli.load(tiny)
    a, b = (model.load_state(_file(env, name)) for name in ("whole", "parts"))
    assert a.tokens == b.tokens
    for name in a.arrays:
        assert np.allclose(a.arrays[name], b.arrays[name], atol=1e-6)


def test_a_state_is_not_replaced_unasked(cli: Cli, tiny: Path) -> None:
    assert cli("state", "make", "x", "-m", tiny, stdin=b"a").code == 0
    assert cli("state", "make", "x", "-m", tiny, stdin=b"b").code == 2
    assert cli("state", "make", "x", "-m", tiny, "--force", stdin=b"b").code == 0


def test_what_there_is_is_listed_and_shown(cli: Cli, tiny: Path) -> None:
    cli("state", "make", "doc", "-m", tiny, stdin=b"some words")
    assert cli("state").out.decode().split()[:3] == ["doc", "10", "tokens"]
    assert json.loads(cli("state", "ls", "--json").out)["tokens"] == 10
    assert json.loads(cli("state", "show", "doc", "--json").out)["model"].startswith("v7")
    assert b"tokens" in cli("state", "show", "doc").out


def test_an_export_comes_back_as_it_was(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    cli("state", "make", "doc", "-m", tiny, stdin=b"some words")
    out = tmp_path / "x.rwkvstate"
    assert cli("state", "export", "doc", out).code == 0
    assert cli("state", "export", "doc", out).code == 2
    assert cli("state", "import", out, "copy").code == 0
    assert _file(env, "copy").read_bytes() == _file(env, "doc").read_bytes()


def test_damage_is_found(cli: Cli, env: dict[str, str], tiny: Path) -> None:
    cli("state", "make", "doc", "-m", tiny, stdin=b"some words")
    assert cli("state", "verify", "doc").code == 0
    assert cli("state", "verify", "doc", "-m", tiny).code == 0
    assert cli("state", "verify", "doc", "-m", "demo").code == 4
    path = _file(env, "doc")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert cli("state", "verify", "doc").code == 6
    assert cli("state", "ls").code == 0
    assert cli("generate", "-m", tiny, "--state", "doc", "x").code == 6


def test_a_state_is_read_again_by_another_model(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    from oracle.weights import Shape, random_model

    shape = Shape(layers=1, heads=2, size=16, ffn=32, vocab=256, rank=4)
    save_file({n: w * 0.9 for n, w in random_model("v7", shape).items()}, other)
    cli("state", "make", "doc", "-m", tiny, stdin=b"some words")
    cli("state", "make", "wanted", "-m", other, stdin=b"some words")
    assert cli("state", "rebuild", "doc", "-m", "demo").code == 2  # another tokenizer
    assert cli("state", "rebuild", "doc", "-m", other).code == 0
    model = rwkv_cli.load(other)
    a, b = (model.load_state(_file(env, name)) for name in ("doc", "wanted"))
    assert a.tokens == b.tokens
    assert np.array_equal(a.logits, b.logits)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_a_tuned_state_is_where_reading_begins(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path, kind: str
) -> None:
    model = rwkv_cli.load(tiny)
    _, source = model.prefill(list(b"something to remember"))
    wkv = source.arrays["wkv"]
    path = tmp_path / "tuned.safetensors"
    save_file({"blocks.0.att.time_state": wkv[0].astype({"F16": "f2"}.get(kind, "f4"))}, path)
    if kind == "BF16":
        wkv = (wkv.view(np.uint32) & 0xFFFF0000).view(np.float32)
        _write_bf16(path, wkv[0])
    assert cli("state", "import", path, "style", "-m", tiny).code == 0
    kept = model.load_state(_file(env, "style"))
    assert kept.position == 0
    assert np.allclose(kept.arrays["wkv"], wkv, rtol=1e-3 if kind == "F16" else 0)
    first = cli("generate", "-m", tiny, *ASK, "--state", "style", "x" * 80)
    again = cli("generate", "-m", tiny, *ASK, "--state", "style", "x" * 80)
    assert first.out == again.out
    assert b"cached" not in again.err.encode()


def _write_bf16(path: Path, values: np.ndarray) -> None:
    header = json.dumps(
        {
            "blocks.0.att.time_state": {
                "dtype": "BF16",
                "shape": list(values.shape),
                "data_offsets": [0, 2 * values.size],
            }
        }
    ).encode()
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def test_a_tuned_state_of_other_sizes_is_refused(tiny: Path, tmp_path: Path) -> None:
    model, path = rwkv_cli.load(tiny), tmp_path / "x.safetensors"
    sound = model.zero_state().arrays["wkv"][0].copy()
    for tensors, error in (
        ({"blocks.0.att.time_state": sound[:1]}, MismatchError),
        ({f"blocks.{n}.att.time_state": sound for n in range(2)}, MismatchError),
        ({"blocks.0.att.other": sound}, RefusedError),
        ({"blocks.0.att.time_state": np.full_like(sound, np.nan)}, RefusedError),
    ):
        save_file(tensors, path)
        with pytest.raises(error):
            read_tuned(path, model)


def test_the_room_of_states_is_told(cli: Cli, tiny: Path) -> None:
    cli("chat", "-m", tiny, "-N", "1", "--no-cache", "hi")
    shown = cli("state", "gc", "--dry-run").out.decode()
    assert "last turns of conversations" in shown
    assert "room for" in shown
    assert cli("state", "gc").code == 0


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["show"], 2), (["show", "nope"], 3), (["verify"], 2), (["verify", "/nowhere/x"], 3),
        (["rm"], 2), (["rm", "nope", "-y"], 3), (["make"], 2), (["make", "../x"], 2),
        (["make", ".x"], 2), (["export", "x"], 2), (["import"], 2), (["gc", "x"], 2),
        (["ls", "x"], 2),
        (["rebuild", "x"], 2), (["feed"], 2), (["import", "x.pth"], 3), (["other"], 2),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(cli: Cli, line: list[str], code: int) -> None:
    result = cli("state", *line)
    assert (result.code, result.out) == (code, b"")
    assert result.err


def test_nothing_is_deleted_unasked(cli: Cli, env: dict[str, str], tiny: Path) -> None:
    cli("state", "make", "x", "-m", tiny, stdin=b"a")
    assert cli("state", "rm", "x").code == 2
    assert _file(env, "x").exists()
    assert cli("state", "rm", "x", "-y").code == 0
    assert not _file(env, "x").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such files here")
def test_what_is_no_file_is_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.rwkvstate")
    (tmp_path / "zero.rwkvstate").symlink_to("/dev/zero")
    for name in ("fifo", "zero"):
        assert cli("state", "verify", tmp_path / f"{name}.rwkvstate").code == 6
