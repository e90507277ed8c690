# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Commands for the products of a checkpoint."""

from __future__ import annotations
