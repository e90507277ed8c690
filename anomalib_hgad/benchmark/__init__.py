# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Compares any anomalib models on many classes: ``anomalib-hgad benchmark``.

``plan`` lists the runs, ``execution`` trains and tests one model, ``summary`` makes the tables, and ``command``
executes the runs one after another and resumes an interrupted benchmark.
"""
