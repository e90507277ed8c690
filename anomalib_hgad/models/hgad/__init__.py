# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""HGAD: a mixture-of-Gaussians normalizing flow for many product classes."""
