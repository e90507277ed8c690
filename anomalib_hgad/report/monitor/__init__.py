# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Drift of the products of a production line over time: ``anomalib-hgad monitor``.

``periods`` reads tables of predictions for each product, ``scale`` reads the expectation from the checkpoint, ``chart``
compares both, ``movements`` finds products that have drifted, ``figure`` draws, and ``command`` writes the files.
"""
