# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Shared by all subpackages: files, processes, memory, precision, checks of settings, the frozen backbone."""
