"""How the GPU script goes on when something fails, and how it reads what other programs say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from gpu import script, tools, watchers
from gpu.peer import read
from gpu.record import Deadline, Record, Unit, Values, run_all
from gpu.table import markdown

ROOT = Path(__file__).resolve().parents[2]


def found(*pairs: tuple[str, Any], failure: Exception | None = None) -> Any:
    def work() -> Values:
        yield from pairs
        if failure:
            raise failure

    return work


# --- the record ---------------------------------------------------------------------------------


def test_a_unit_that_fails_keeps_what_it_found_and_the_others_go_on(tmp_path: Path) -> None:
    record = Record(tmp_path / "part.json")
    units = [
        Unit("a", found(("x", 1), failure=ValueError("no\n good"))),
        Unit("b", found(("y", 2))),
    ]
    assert run_all(units, record, Deadline(60), lambda: True)
    written = json.loads((tmp_path / "part.json").read_text())
    assert written["values"] == {"a": {"x": 1}, "b": {"y": 2}}
    assert written["failed"]["a"].startswith("ValueError: no good (test_gpu_script.py:")
    assert written["begun"] is None


def test_a_card_that_no_longer_answers_is_left_to_a_new_process(tmp_path: Path) -> None:
    units = [Unit("a", found(failure=RuntimeError("gone"))), Unit("b", found(("y", 2)))]
    path = tmp_path / "part.json"
    assert not run_all(units, Record(path), Deadline(60), lambda: False)
    assert "b" not in json.loads(path.read_text())["values"]
    assert run_all(units, Record(path), Deadline(60), lambda: False)
    assert json.loads(path.read_text())["values"]["b"] == {"y": 2}


def test_a_unit_in_which_the_process_ended_is_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    code = (
        "import os, sys; sys.path.append(sys.argv[1])\n"
        "from pathlib import Path\n"
        "from gpu.record import Deadline, Record, Unit\n"
        "def work():\n    yield 'x', 1\n    os._exit(9)\n"
        "Record(Path(sys.argv[2])).run(Unit('a', work), Deadline(9))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT / "benchmarks"), str(path)])
    assert done.returncode == 9
    record = Record(path)
    assert record.failed == {"a": "the process ended in the middle of it"}
    assert run_all([Unit("a", found(("x", 5)))], record, Deadline(60), lambda: True)
    assert record.values["a"] == {"x": 1}


def test_what_there_is_no_time_for_is_left_out_and_said(tmp_path: Path) -> None:
    record = Record(tmp_path / "part.json")
    run_all([Unit("a", found(("x", 1)), least=10)], record, Deadline(5), lambda: True)
    assert record.left_out == {"a": "there was no time for it"}
    run_all([Unit("b", found(("x", 1), ("y", 2)), least=-9)], record, Deadline(-1), lambda: True)
    assert record.values["b"] == {"x": 1}
    assert record.left_out["b"] == "there was no time after x"


# --- other programs -----------------------------------------------------------------------------


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started() -> None:
    code = "import subprocess as s, sys; print('begun', flush=True); s.run(['sleep', '600'])"
    done = tools.run([sys.executable, "-S", "-c", code], 1)
    assert done.status is None
    assert done.output == "begun\n"
    done = tools.run([sys.executable, "-S", "-c", "import os; print(os.environ['A'])"], 9, A="b")
    assert (done.status, done.output) == (0, "b\n")


REPORT = """<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="4" failures="1"
errors="0" skipped="1" time="3.5"><testcase name="test_a"/><testcase name="test_b[1]"><failure
message="assert 1 == 2
 here">long</failure></testcase><testcase name="test_c"><skipped message="no library"/></testcase>
<testcase name="test_d"/></testsuite></testsuites>"""


def test_a_report_of_tests_is_counted_and_failures_are_named() -> None:
    values = dict(tools.verdicts(REPORT))
    assert (values["passed"], values["failed"], values["skipped"]) == (2, 1, 1)
    assert values["failure: test_b[1]"] == "assert 1 == 2 here"
    assert values["skipped: test_c"] == "no library"


def test_tests_of_kernels_come_before_those_of_the_engine() -> None:
    names = tools.card_tests()
    assert {"native/test_cuda_rows.py", "native/test_cuda_sample.py"} <= set(names)
    assert names.index("native/test_cuda_scans.py") < names.index("engine/test_cuda.py")
    assert not [name for name in names if "nvrtc" in name or "real" in name]


SANITIZED = """========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 16 bytes
=========     at dot_1+0x1230
=========     by thread (3,0,0) in block (1,0,0)
=========
========= Invalid __global__ read of size 16 bytes
=========     at dot_1+0x1230
=========
========= Uninitialized __global__ memory read of size 4 bytes
=========     at void at::native::vectorized_elementwise_kernel<4, float>+0x20
=========
judged: agrees with torch
========= ERROR SUMMARY: 3 errors
"""


def test_reports_of_the_sanitizer_are_told_apart_by_their_kernel() -> None:
    values = dict(watchers.findings(tools.Done(1, SANITIZED), ["dot_1", "value_1"]))
    assert values["summary"] == "ERROR SUMMARY: 3 errors"
    assert values["self-test"] == "judged: agrees with torch"
    ours = {"dot_1: Invalid __global__ read of size 16 bytes": 2}
    assert values["reports of our kernels"] == ours
    assert values["other reports"] == 1


def test_a_program_that_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "found", lambda name: None)
    (unit,) = watchers.sanitizer_units(["dot_1"], Deadline(60))
    assert "compute-sanitizer is neither" in dict(unit.work())["left out"]
    (unit,) = watchers.profiler_units(Deadline(60))
    assert "ncu is neither" in dict(unit.work())["left out"]


def test_the_sanitizer_looks_at_the_self_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text('#!/bin/sh\necho "judged: $* $PYTORCH_NO_CUDA_MEMORY_CACHING"\n')
    program.chmod(0o755)
    monkeypatch.setattr(watchers, "found", lambda name: str(program))
    units = watchers.sanitizer_units(["dot_1"], Deadline(60))
    assert units[1].name == "racecheck, v7 int4"
    said = dict(units[1].work())["self-test"]
    assert "--tool racecheck" in said
    assert said.endswith("child.py judge v7 int4 1")


COUNTERS = """==PROF== Connected to process 7
"ID","Process ID","Kernel Name","Grid Size","Metric Name","Metric Unit","Metric Value"
"0","7","dot_1","(264, 1, 1)","gpu__time_duration.sum","us","1,004.5"
"1","7","dot_1","(264, 1, 1)","gpu__time_duration.sum","us","6.5"
"2","7","dot_1","(264, 1, 1)","gpu__time_duration.sum","us","7.5"
"3","7","scan7_64","(32, 4, 1)","launch__registers_per_thread","register/thread","n/a"
"""


def test_counters_are_medians_of_a_kernels_launches() -> None:
    values = dict(watchers.counters(COUNTERS))
    assert values == {"dot_1 (264, 1, 1)": {"gpu__time_duration.sum us": 7.5}}
    assert not dict(watchers.counters("==ERROR== no permission"))


def test_the_last_that_the_peer_measured_counts() -> None:
    output = 'Loading\nmeasured: {"decode tok/s": 3}\nmeasured: {"decode tok/s": 4}\nbroken'
    assert read(output) == {"decode tok/s": 4}
    assert read("nothing") is None


# --- the script ---------------------------------------------------------------------------------


def test_parts_are_run_in_their_order_and_others_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert script.arguments(["--out", "o"]).parts == list(script.PARTS)
    assert script.arguments(["speed", "facts", "--out", "o"]).parts == ["facts", "speed"]
    with pytest.raises(SystemExit):
        script.arguments(["speeed", "--out", "o"])
    assert "there is no part speeed" in capsys.readouterr().err


def run(*parts: str, out: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *parts]
    command += ["--out", str(out), "--limit", "40"]
    environment = os.environ | settings
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_without_a_card_every_part_says_so_and_the_record_is_there(tmp_path: Path) -> None:
    done = run("facts", "profile", out=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "gpu.json").read_text())
    for part in ("facts", "profile"):
        assert "torch sees no CUDA card" in data[part]["failed"]["the part"]
    text = (tmp_path / "gpu.md").read_text()
    assert text.strip() == done.stdout.strip()
    assert text.rstrip().splitlines()[-1].endswith("| not measured |")


def test_a_machine_that_has_only_torch_is_enough() -> None:
    stand_in = script.STAND_INS / "platformdirs.py"
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('click', 'prompt_toolkit', 'pyrwkv_tokenizer',\n"
        "                                      'tokenizers', 'rwkv', 'safetensors'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"sys.path[:0] = [{str(stand_in.parent)!r}, {str(ROOT / 'benchmarks')!r}]\n"
        "import platformdirs\n"
        f"assert platformdirs.__file__ == {str(stand_in)!r}\n"
        "from gpu import equality, facts, peer, profile, speed, tools\n"
        "assert platformdirs.user_cache_dir('rwkv', False).startswith('/')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


RECORD = {
    "values": {
        "v7-1.5b fp16": {
            "read GB/s": 4000.0,
            "decode 1": {"tok/s": 1400.0, "us": 714.3, "share of the floor": 0.7},
            "decode 1, drawn on the card": {"greedy tok/s": 1200.0},
            "prefill 1024": {"tok/s": 90000.0},
        }
    },
    "failed": {"v7-7.2b fp16": "OutOfMemoryError: none left"},
    "left_out": {"v4-1.5b fp16": "there was no time for it"},
    "seconds": {"v7-1.5b fp16": 9.0},
    "begun": "v6-1.6b fp16",
}  # fmt: skip


def test_a_record_says_what_was_reached_what_failed_and_what_is_missing() -> None:
    peer = RECORD | {"values": {"v7-1.5b": {"decode tok/s": 100.0}}, "failed": {}, "left_out": {}}
    text = markdown({"speed": RECORD, "peer": peer})
    assert "| v7-1.5b fp16, batch 1, tok/s | 1400.0 | 1300 | yes |" in text
    assert "| v7-1.5b fp16, prefill, tok/s | 90000.0 | 120000 | no |" in text
    assert "| v7-1.5b fp16, times the package rwkv | 12.0 | 3.0 | yes |" in text
    assert "| v7-7.2b int8, batch 1, tok/s |  | 600 | not measured |" in text
    assert "- failed: v7-7.2b fp16: OutOfMemoryError: none left" in text
    assert "- left out: v4-1.5b fp16: there was no time for it" in text
    assert "- ended in the middle of v6-1.6b fp16" in text
    assert text.index("## peer") < text.index("## speed") < text.index("## targets")
