# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Full precision for distances, densities and scores.

||z - mu||^2 is a difference of numbers of the order of D, and a score a difference of almost equal numbers: half
precision would leave no significant digits.
"""

from __future__ import annotations

import torch


def full_precision(values: torch.Tensor) -> torch.Tensor:
    """Convert values to float32; float64 stays float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def no_autocast(values: torch.Tensor) -> torch.autocast:
    """Return a context that disables autocast on the device of the values."""
    return torch.autocast(values.device.type, enabled=False)
