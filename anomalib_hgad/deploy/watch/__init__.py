# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images scored as they appear in a folder: ``anomalib-hgad watch``.

``arrivals`` finds images that are complete, ``scorer`` has the exported model, ``table`` and ``pictures`` write down
what it says, ``line`` leads images from the one to the other, several at a time, and ``command`` is what users call. On
a line PyTorch and anomalib are not needed, and nothing here imports them.
"""
