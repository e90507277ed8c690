# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Where half precision must not go: distances, densities and scores.

||z - mu||^2 is a difference of numbers of the size of D, and a score one of numbers that are almost equal; in half
precision nothing would be left of them.
"""

from __future__ import annotations

import torch


def full_precision(values: torch.Tensor) -> torch.Tensor:
    """Values in float32, or in float64 if that is what they are in."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def no_autocast(values: torch.Tensor) -> torch.autocast:
    """Context in which autocast leaves the precision of operations on the device of some values alone."""
    return torch.autocast(values.device.type, enabled=False)
