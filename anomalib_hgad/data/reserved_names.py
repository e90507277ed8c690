# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Names that no class and no kind of defect may have, because tables use them for something else."""

from __future__ import annotations

UNKNOWN = "unknown"
"""``pred_class_name`` of an image that shows none of the model's classes."""

OTHER = "other"
"""``defect_kind`` of an image that is unlike all known defects of its class; no kind may have this name."""

MEAN = "mean"
"""Name of the row with the mean over the classes; no class may have this name."""

POOLED = "pooled"
"""Name of the row of all images, regardless of class; no class may have this name."""
