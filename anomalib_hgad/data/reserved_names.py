# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Names that no class and no kind of defect may have, as tables say something else with them."""

from __future__ import annotations

UNKNOWN = "unknown"
"""``pred_class_name`` of an image of none of the classes that the model knows."""

OTHER = "other"
"""``defect_kind`` of an image that is unlike all known defects of its class; no kind may be called so."""

MEAN = "mean"
"""Name of the row of the results that has the mean over the classes; no class may be called so."""

POOLED = "pooled"
"""Name of the row that has all images, whatever their class; no class may be called so."""
