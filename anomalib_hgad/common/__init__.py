# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What all rooms use: files, processes, memory, precision, checks of settings, the frozen backbone."""
