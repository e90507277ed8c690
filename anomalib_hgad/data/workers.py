# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Default number of worker processes for data loading."""

from __future__ import annotations

import os

MOST = 8
"""anomalib's default, about which PyTorch warns on a machine with fewer cores."""


def usual_workers() -> int:
    """One worker for each core available to this process, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST, cores)
