# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What becomes of runs that are killed: ``python -m tests.stress.faults``."""
