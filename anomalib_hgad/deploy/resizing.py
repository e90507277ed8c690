# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Antialiased bilinear resizing for exported graphs, by operations that every runtime supports.

ONNX has an attribute for antialiasing in Resize, but OpenVINO ignores it without a warning, which changed scores by up
to 0.49. OpenVINO's own antialiased operation takes longer than a small backbone on images of a camera's size.
"""

from __future__ import annotations

from typing import Any

import torch
from torchvision.transforms.v2 import Transform

BLOCK = 32
"""Number of new pixels that are computed together, from the window of old ones that they depend on."""


class AntialiasedResize(Transform):
    """Antialiased bilinear resizing as matrix products of blocks of pixels, first of rows, then of columns.

    The result equals ``torch.nn.functional.interpolate(..., mode="bilinear", antialias=True)`` up to rounding.

    Args:
        size: Height and width of the result.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Resize.

        Args:
            inpt: Images, shape (..., height, width).
            params: Unused.

        Returns:
            Images, shape (..., *size).
        """
        del params
        # Sizes that vary are symbols in an export, which must not be compared: the graph would take one size only.
        if all(type(side) is int for side in inpt.shape[-2:]) and inpt.shape[-2:] == self.size:
            return inpt
        height, width = self.size
        index, weights = window_weights(inpt.shape[-2], height, like=inpt)
        rows = inpt.index_select(-2, index.flatten()).unflatten(-2, index.shape)
        image = (weights @ rows).flatten(-3, -2)[..., :height, :]
        index, weights = window_weights(image.shape[-1], width, like=inpt)
        columns = image.index_select(-1, index.flatten()).unflatten(-1, index.shape).transpose(-2, -3)
        return (columns @ weights.mT).transpose(-2, -3).flatten(-2)[..., :width]


def window_weights(size: int, new_size: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the weights of old pixels in new ones along one axis: a triangle two pixels of the coarser grid wide.

    Args:
        size: Number of old pixels.
        new_size: Number of new pixels.
        like: Tensor with the device and dtype for the weights.

    Returns:
        Old pixels of each block's window, int64, shape (blocks, window), and their weights in the block's new pixels,
        shape (blocks, block, window). Those of each new pixel sum to 1. New pixels beyond ``new_size`` fill the last
        block.
    """
    block = min(BLOCK, new_size)
    blocks = -(-new_size // block)
    # The old pixels below a block, those within reach of its first and last pixel, and a few more for rounding.
    window = ((block + 1) * size) // new_size + 6
    last = torch.arange(size, device=like.device)[-1].to(like)
    step = (last + 1) / new_size  # a tensor: in an exported graph the size itself has no value to compare
    reach = step.clamp(min=1)
    centers = (torch.arange(blocks * block, device=like.device).to(like).view(blocks, block) + 0.5) * step
    pixels = (centers[:, :1] - reach - 1).floor() + torch.arange(window, device=like.device).to(like)
    inside = ((pixels >= 0) & (pixels <= last)).to(like).unsqueeze(1)
    distances = ((pixels + 0.5).unsqueeze(1) - centers.unsqueeze(2)).abs() / reach
    weights = (1 - distances).clamp(min=0) * inside
    totals = weights.sum(dim=-1, keepdim=True)
    return pixels.clamp(min=0).minimum(last).long(), weights / torch.where(totals > 0, totals, 1)
