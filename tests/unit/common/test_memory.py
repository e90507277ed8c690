# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the free memory on made-up systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalib_hgad.common import memory


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux system with 8000 kB free."""
    for name, file in (("_MEMINFO", "meminfo"), ("_CGROUP_OF_PROCESS", "cgroup"), ("_CGROUPS", "groups")):
        monkeypatch.setattr(memory, name, tmp_path / file)
    (tmp_path / "meminfo").write_text("MemTotal:  16000 kB\nMemFree:  10 kB\nMemAvailable:  8000 kB\n")
    return tmp_path


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")


def test_memory_of_the_system(system: Path) -> None:
    assert memory.available_memory() == 8000 * 1024


def test_limit_of_a_control_group(system: Path) -> None:
    (system / "cgroup").write_text("0::/user/run\n")
    group(system / "groups/user/run", max=5000, current=3000, stat="anon 1\ninactive_file 700")
    assert memory.available_memory() == 2700


def test_limit_of_a_group_above(system: Path) -> None:
    (system / "cgroup").write_text("0::/user/run\n")
    group(system / "groups/user/run", max="max", current=3000)
    group(system / "groups/user", max=6000, current=5000)
    assert memory.available_memory() == 1000


def test_limit_of_a_container(system: Path) -> None:
    """Whose own group is the root of what it sees, under a path that only the host has."""
    (system / "cgroup").write_text("0::/docker/0123\n")
    group(system / "groups", max=4000, current=1000)
    assert memory.available_memory() == 3000


def test_limit_in_version_1(system: Path) -> None:
    (system / "cgroup").write_text("7:cpu:/job\n4:memory:/job\n0::/\n")
    group(system / "groups/memory/job", limit_in_bytes=9000, usage_in_bytes=8000, stat="total_inactive_file 50")
    group(system / "groups/cpu/job", limit_in_bytes=1, usage_in_bytes=0)
    assert memory.available_memory() == 1050


def test_full_group_leaves_nothing(system: Path) -> None:
    (system / "cgroup").write_text("0::/\n")
    group(system / "groups", max=4000, current=4100)
    assert memory.available_memory() == 0


def test_other_systems(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (system / "meminfo").unlink()
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    assert memory.available_memory() == 1024 * 1000
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.available_memory() == memory.ASSUMED_FREE
