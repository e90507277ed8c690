# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a line shows over time, product by product: ``anomalib-hgad monitor``.

``periods`` reads what tables of predictions say of each product, ``scale`` what the checkpoint expects of it, ``chart``
holds both against each other, ``movements`` says which products have moved, ``figure`` draws, and ``command`` writes
it down.
"""
