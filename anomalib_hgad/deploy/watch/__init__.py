# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Scores images as they appear in a folder: ``anomalib-hgad watch``.

``arrivals`` finds complete images, ``scorer`` runs the exported model, ``table`` and ``pictures`` write the results,
``line`` passes several images at a time from one to the next, and ``command`` is what users call. On a production line
PyTorch and anomalib are not needed, and nothing here imports them.
"""
