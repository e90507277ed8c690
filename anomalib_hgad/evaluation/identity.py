# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Identity of a model, by which the files of a test are matched with a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

COUNTED = ("model.", "post_processor.")
"""Name prefixes of the tensors that scores and labels depend on; those of metrics have others."""


def identity(state: Mapping[str, torch.Tensor]) -> str:
    """Compute a checksum of the weights, scales and thresholds of a model.

    Args:
        state: Its state.

    Returns:
        16 digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(state.items()):
        if name.startswith(COUNTED):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
