# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Free and used memory, as far as the system reports them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

if sys.platform != "win32":
    import resource

ASSUMED_FREE = 2 * 1024**3
"""Bytes assumed to be free where the system does not report it."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP_OF_PROCESS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_CGROUP_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Files with the memory limit and usage of a control group, versions 2 and 1."""


def available_memory() -> int:
    """Bytes of main memory that can be allocated without swapping, within the limits of the process's control groups.

    Returns:
        Free bytes on Linux; a quarter of the memory on other systems that report its size; else :data:`ASSUMED_FREE`.
    """
    try:
        lines = dict(line.split(":", maxsplit=1) for line in _MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        try:
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
        except (AttributeError, OSError, ValueError):  # Windows has no sysconf
            free = ASSUMED_FREE
    return max(0, min([free, *_free_in_control_groups()]))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that main memory is exhausted. PyTorch has an error class for this on GPUs only.

    Args:
        error: The error.

    Returns:
        Whether it is one.
    """
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))


def peak_memory() -> int | None:
    """Peak memory of this process: on the GPU if it used one, else main memory.

    Returns:
        Bytes; ``None`` where the system does not report it.
    """
    if torch.cuda.is_available() and (used := torch.cuda.max_memory_allocated()):
        return used
    if sys.platform == "win32":
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def _free_in_control_groups() -> list[int]:
    """Bytes that each control group of the process still allows."""
    try:
        entries = [line.split(":", maxsplit=2) for line in _CGROUP_OF_PROCESS.read_text().splitlines()]
    except OSError:
        return []
    free = []
    for _, controllers, path in entries:
        if controllers not in {"", "memory"}:
            continue
        # In a container the path may be the host's, where nothing is mounted; then the process's group is the root.
        group = _CGROUPS / controllers / path.lstrip("/")
        for folder in (group, *group.parents):
            if _CGROUPS not in {folder, *folder.parents}:
                break
            for limit_name, usage_name in _CGROUP_FILES:
                limit, usage = _number(folder / limit_name), _number(folder / usage_name)
                if limit is not None and usage is not None:
                    free.append(limit - usage + _reclaimable(folder / "memory.stat"))
    return free


def _number(path: Path) -> int | None:
    """The number in a file; ``None`` if there is none, as ``max`` for no limit."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _reclaimable(path: Path) -> int:
    """Bytes of the page cache, which count as used but are freed on demand."""
    try:
        lines = dict(line.split() for line in path.read_text().splitlines())
        return int(lines.get("total_inactive_file", lines.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0
