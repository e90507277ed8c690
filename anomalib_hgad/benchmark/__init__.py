# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Any anomalib models compared on many classes: ``anomalib-hgad benchmark``.

``plan`` says what is run, ``execution`` trains and tests one model, ``summary`` makes the tables, and ``command`` runs
one after another and goes on where it stopped.
"""
