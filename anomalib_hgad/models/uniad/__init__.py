# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""UniAD: one model for many product classes, which reconstructs features with a transformer.

Paper: A Unified Model for Multi-class Anomaly Detection, NeurIPS 2022, https://arxiv.org/abs/2206.03687
"""
