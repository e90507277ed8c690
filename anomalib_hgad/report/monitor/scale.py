# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Typicality of good images of each product, read from a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from anomalib_hgad.models.checkpoint import check_versions
from anomalib_hgad.models.checkpoint_io import explain_checkpoint_errors
from anomalib_hgad.models.hgad.class_labels import ClassLabels
from anomalib_hgad.models.hgad.novelty import NoveltyScale

STATE_PREFIX = "model.novelty."
"""Prefix of the scale's tensors in a checkpoint."""

THRESHOLD = "post_processor._image_threshold"
"""Name of anomalib's image threshold in a checkpoint; NaN if the training had no validation."""


@dataclass(frozen=True)
class ProductScale:
    """Products of a checkpoint, and the scale of their novelty.

    Attributes:
        names: Names of the K products.
        scale: The scale of K classes.
    """

    names: list[str]
    scale: NoveltyScale

    def typicality(self, name: str, novelty: float) -> float:
        """Typicality of an image, or mean typicality of some, in nats per dimension.

        Args:
            name: Their product.
            novelty: Their novelty.
        """
        index = self.names.index(name)
        return self.scale.location[index].item() - novelty * self.scale.margin[index].item()


def read_scale(ckpt_path: Path) -> ProductScale:
    """Read only the products of a checkpoint and their scale, without building the backbone.

    Args:
        ckpt_path: The checkpoint.

    Returns:
        Products and scale.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read, is of another model or version, does not tell products apart, or has no
            threshold.
    """
    if not ckpt_path.is_file():
        msg = f"{ckpt_path} is missing. Expected the checkpoint that made the tables."
        raise FileNotFoundError(msg)
    with explain_checkpoint_errors(ckpt_path):
        checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
    check_versions(checkpoint)
    names = ClassLabels(None).names_in(checkpoint, resumes=False)
    if checkpoint["hyper_parameters"].get("prior") == "single_gaussian":
        msg = f"{ckpt_path} has a single Gaussian for all products (prior='single_gaussian') and cannot tell them "
        msg += "apart. Expected a checkpoint with another prior."
        raise ValueError(msg)
    state = checkpoint["state_dict"]
    if math.isnan(state.get(THRESHOLD, math.nan)):
        msg = f"{ckpt_path} has no threshold, so its labels mean nothing. Train with validation images."
        raise ValueError(msg)
    scale = NoveltyScale(len(names))
    scale.load_state_dict({name: state[f"{STATE_PREFIX}{name}"] for name in scale.state_dict()})
    return ProductScale(names, scale)
