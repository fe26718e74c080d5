"""The number of threads: physical cores, as many as may be used."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rwkv_cli.native import machine


def topology(folder: Path, siblings: list[str]) -> Path:
    for number, text in enumerate(siblings):
        place = folder / f"cpu{number}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(text + "\n")
    return folder


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.mark.parametrize(
    ("siblings", "allowed", "cores"),
    [
        (["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"], range(8), 4),
        (["0-1", "0-1", "2-3", "2-3"], range(4), 2),
        (["0-1", "0-1", "2-3", "2-3"], {0, 1}, 1),
        (["0-1", "0-1", "2-3", "2-3"], {1, 2}, 2),
        (["0", "1", "2"], range(3), 3),
        ([], range(3), 3),
        (["0"], set(), 0),
    ],
)
def test_siblings_of_one_core_count_once(
    tmp_path: Path, siblings: list[str], allowed: set[int], cores: int
) -> None:
    assert machine._distinct_cores(allowed, topology(tmp_path, siblings)) == cores


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({"a/b": "max 100000"}, None),
        ({"a/b": "150000 100000"}, 1.5),
        ({"a/b": "400000 100000", "a": "200000 100000"}, 2),
        ({"": "300000 100000", "a": "max 100000"}, 3),
        ({"a/b": "nonsense"}, None),
        ({"a/b": "1 0"}, None),
        ({}, None),
    ],
)
def test_the_tightest_quota_above_counts(
    tmp_path: Path, limits: dict[str, str], quota: float | None
) -> None:
    own, groups = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text("0::/a/b\n")
    for name, text in limits.items():
        group(groups / name, cpu__max=text)
    assert machine._cpu_quota(own, groups) == quota


def test_the_older_control_groups_are_understood(tmp_path: Path) -> None:
    own, groups = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text("4:memory:/x\n3:cpu,cpuacct:/a\n1:name=systemd:/a\n")
    group(groups / "cpu" / "a", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    group(groups / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert machine._cpu_quota(own, groups) == 2.5
    assert machine._cpu_quota(tmp_path / "none", groups) is None


@pytest.mark.parametrize(
    ("quota", "cores", "threads"),
    [(None, 8, 8), (2.0, 8, 2), (1.5, 8, 2), (0.2, 8, 1), (16.0, 8, 8), (None, 0, 1)],
)
def test_a_quota_is_rounded_up_and_never_raises_the_count(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int, threads: int
) -> None:
    monkeypatch.setattr(machine, "_cpu_quota", lambda: quota)
    monkeypatch.setattr(machine, "_allowed_cores", lambda: cores)
    assert machine.default_threads() == threads


def test_this_machine_has_some() -> None:
    assert 1 <= machine.default_threads() <= machine.physical_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and changes it")
def test_a_process_kept_on_one_processor_gets_one_thread() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.default_threads() == 1
    finally:
        os.sched_setaffinity(0, before)
