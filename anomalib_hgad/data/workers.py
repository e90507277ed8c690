# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Number of processes that read images."""

from __future__ import annotations

import os

MOST = 8
"""anomalib's default, which PyTorch warns of on a machine of fewer cores."""


def usual_workers() -> int:
    """One worker for each core that this process may run on, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST, cores)
