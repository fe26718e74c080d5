"""`rwkv info` tells how a model would run here, and which published model it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import Cli
from oracle.models import TINY, needs_native, save_pth
from oracle.weights import random_model

from rwkv_cli.hub import catalogue


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save_pth(random_model("v7", TINY), tmp_path / "small.pth", "bf16")


def test_the_table_and_the_json_of_a_plan_say_the_same(cli: Cli, small: Path) -> None:
    strategy = "cuda fp16 *1 -> cpu fp32"
    told = json.loads(cli("info", small, "--strategy", strategy, "--json").out)["plan"]
    assert [row["what"] for row in told["rows"]] == ["embedding", "layer 0", "layer 1", "head"]
    assert [row["device"] for row in told["rows"]] == ["cpu", "cuda", "cpu", "cpu"]
    sizes = ("resident_bytes", "streamed_bytes", "state_bytes")
    assert sum(row[size] for row in told["rows"] for size in sizes) == told["total_bytes"]
    shown = cli("info", small, "--strategy", strategy).out.decode()
    lines = [line.split()[:1] for line in shown.splitlines()]
    assert lines[-9:-8] == [["part"]]
    assert f"--strategy '{told['strategy']}'" in shown
    assert ("fits         yes" in shown) == told["fits"]
    if "cuda" not in told["free_bytes"]:
        assert shown.splitlines()[-1] == "fits         yes, if cuda can be used here"


@needs_native
def test_a_packed_file_is_planned_only_as_it_can_run(cli: Cli, small: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.safetensors"
    assert cli("convert", small, "--dtype", "int8", "-o", packed).code == 0
    assert cli("info", packed, "--strategy", "cpu fp16i8").code == 0
    asked = ("--strategy", "cpu fp32")
    planned = cli("info", packed, *asked)
    run = cli("generate", "-m", packed, "hi", *asked)
    assert planned.code == run.code == 2
    assert planned.err == run.err
    assert "is packed as int8, not fp32" in planned.err


def test_figures_of_a_plan_have_no_exponents_and_no_empty_columns(cli: Cli, small: Path) -> None:
    shown = cli("info", small, "--plan").out.decode()
    assert "streamed" not in shown
    assert "e+" not in shown


def test_a_plan_is_made_only_when_it_is_asked_for(cli: Cli, small: Path) -> None:
    assert "plan" not in json.loads(cli("info", small, "--json").out)
    told = json.loads(cli("info", small, "--json", "--plan").out)["plan"]
    assert told["fits"] is True
    assert set(told["peak_bytes"]) == {"cpu"}


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (("--strategy", "cuda fp99"), 2, "^^^^"),
        (("--plan", "--ram-budget", "1k"), 8, "does not fit into memory"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(
    flags: tuple[str, ...], code: int, sentence: str, cli: Cli, small: Path
) -> None:
    result = cli("info", small, *flags)
    assert (result.code, result.out) == (code, b"")
    assert sentence in result.err


@pytest.mark.parametrize("change", ["", "name", "size"])
def test_a_published_model_is_known_by_name_and_size(
    change: str, cli: Cli, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = small.stat().st_size + (change == "size")
    name = "other.pth" if change == "name" else "small.pth"
    row = {"names": ("g9-tiny",), "repo": "A/B", "file": f"x/{name}", "size": size, "about": None,
           "sha256": "12ab", "licence": None, "family": "g1", "version": 7, "parameters": "1b",
           "date": None, "format": "pth"}  # fmt: skip
    monkeypatch.setattr(catalogue, "entries", lambda: (catalogue.Entry(**row),))
    told = json.loads(cli("info", small, "--json").out)
    assert told["published_as"] == "g9-tiny"
    assert {
        "": "its sha256 must be 12ab",
        "name": "the size of other.pth",
        "size": "another file, or cut",
    }[change] in told["compared"]
