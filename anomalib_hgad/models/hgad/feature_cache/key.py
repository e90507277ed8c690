# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether features may be cached, and a key of what they depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from anomalib.data import AnomalibDataset
from anomalib.data.transforms import ExportableCenterCrop, SquarePad
from torchvision.transforms.v2 import CenterCrop, Grayscale, Normalize, Resize, Transform

from anomalib_hgad.common.encoder import PyramidEncoder
from anomalib_hgad.common.versions import installed_versions
from anomalib_hgad.data.dataset import MultiClassDataset
from anomalib_hgad.deploy.transforms import last_size, steps

CACHE_FORMAT = 1
"""Version of the file format and of the computation of the features."""

LIBRARIES = ("pillow", "timm", "torch", "torchvision")
"""Libraries whose versions may change features."""

FIXED_TRANSFORMS = (CenterCrop, ExportableCenterCrop, Grayscale, Normalize, Resize, SquarePad)
"""Transforms that are deterministic."""


def readers(images: AnomalibDataset) -> list[AnomalibDataset]:
    """Return the datasets that read the images of a dataset."""
    return [part.dataset for part in images.parts] if isinstance(images, MultiClassDataset) else [images]


def image_size(datasets: Sequence[AnomalibDataset], transform: Transform | None) -> tuple[int, int]:
    """Return the common height and width of the images of some datasets.

    Args:
        datasets: The datasets.
        transform: Transform of the pre-processor.

    Returns:
        Height and width before the pre-processor's transform.

    Raises:
        ValueError: If images are not the same every time they are read, or not all of one size. The message says why.
    """
    augmentations = [reader.augmentations for images in datasets for reader in readers(images)]
    if any(images.augmentations is not None for images in datasets if isinstance(images, MultiClassDataset)):
        msg = "further augmentations are applied after those of the classes"
        raise ValueError(msg)
    for kind in (transform, *augmentations):
        for step in steps(kind):
            if type(step) not in FIXED_TRANSFORMS:
                msg = f"{type(step).__name__} may change an image differently each time"
                raise ValueError(msg)
    sizes = {last_size(kind) for kind in augmentations}
    size = sizes.pop()
    if sizes or size is None:
        msg = "the images are not all resized to one height and width before they are batched"
        raise ValueError(msg)
    return size


def file_digest(path: str | Path) -> str:
    """Compute a digest of the content of a file."""
    return hashlib.blake2b(Path(path).read_bytes()).hexdigest()


def content_key(
    datasets: Sequence[AnomalibDataset],
    digests: Sequence[str],
    encoder: PyramidEncoder,
    transform: Transform | None,
    precision: str,
) -> str:
    """Compute a digest of everything that features depend on.

    Args:
        datasets: The images.
        digests: Digests of their files, in order.
        encoder: Encoder of the features.
        transform: Transform of the pre-processor.
        precision: Precision that the encoder computes in.

    Returns:
        The digest, 32 hexadecimal digits.
    """
    settings = [
        CACHE_FORMAT,
        list(installed_versions(LIBRARIES).items()),
        [(type(reader).__qualname__, repr(reader.augmentations)) for images in datasets for reader in readers(images)],
        repr(transform),
        (encoder.backbone, encoder.names_of_scales, encoder.neighborhood, encoder.tokens, precision),
        list(digests),
    ]
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
