# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Pseudo-labels: classes for unlabelled images (HGAD, appendix 0.A.2).

A frozen backbone describes an image by one vector, the mean of its features over the positions, normalised to length 1.
These vectors are clustered, or compared with those of a few reference images of each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestCentroid
from timm.layers.patch_embed import PatchEmbed
from torch.nn import functional as F
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_hgad.common.backbones import available_layers, check_backbone, image_statistics
from anomalib_hgad.common.checks import check_choice
from anomalib_hgad.common.encoder import PyramidEncoder
from anomalib_hgad.common.progress import track
from anomalib_hgad.data.folders import image_files, listed, subfolders
from anomalib_hgad.data.images import read_checked
from anomalib_hgad.data.letters import composed
from anomalib_hgad.data.sources import check_names

Labels = Literal["given", "cluster", "references"]
"""Source of the classes: names in the data, clusters of its images, or reference images."""

IMAGE_SIZE = 256
"""Side that images are resized to before they are described."""

MOST_CLUSTERS = 40
"""Maximum number of clusters that is tried if the number is not given."""


class Classifier(Protocol):
    """Interface of scikit-learn's fitted classifiers and clusterings."""

    def predict(self, descriptions: np.ndarray) -> np.ndarray:
        """Class of each description, shape (number,)."""


@dataclass(frozen=True)
class PseudoLabels:
    """How images get their classes.

    Attributes:
        kind: Source of the classes.
        num_clusters: Number of clusters; ``None`` chooses the one with the best silhouette.
        references: Folder with a subfolder of reference images for each class.
        backbone: timm model whose second-to-last stage describes the images.
        backbone_weights: Local file with its weights, instead of a download.

    Raises:
        ValueError: If a setting is out of range or cannot be combined with the kind, or if there is no such backbone.
    """

    kind: Labels
    num_clusters: int | None = None
    references: str | Path | None = None
    backbone: str = "resnet18"
    backbone_weights: str | Path | None = None

    def __post_init__(self) -> None:
        check_choice(Labels, labels=self.kind)
        if self.num_clusters is not None and (self.kind != "cluster" or self.num_clusters < 1):
            msg = f"Expected num_clusters >= 1 together with labels='cluster', got {self.num_clusters} and "
            msg += f"{self.kind!r}."
            raise ValueError(msg)
        if (self.kind == "references") != (self.references is not None):
            msg = "labels='references' and a folder of references belong together: expected both or neither, got "
            msg += f"labels={self.kind!r} and references={self.references}."
            raise ValueError(msg)
        if self.kind != "given":
            check_backbone(self.backbone)

    def reference_images(self) -> dict[str, list[Path]]:
        """Find the reference images of each class, which is named after its subfolder.

        Raises:
            FileNotFoundError: If the folder of references does not exist.
            ValueError: If it has fewer than two subfolders, one without images, or one whose name no class may have.
        """
        folder = Path(str(self.references))
        if not folder.is_dir():
            msg = f"references: no folder at {folder}. Expected one with a subfolder of images for each class."
            raise FileNotFoundError(msg)
        places = subfolders(folder)
        if len(places) < 2:
            msg = f"references: {folder} has {len(places) or 'no'} subfolder. Expected one with a few images for each "
            msg += "class, and at least two classes: an image gets the one that it resembles most."
            raise ValueError(msg)
        check_names([composed(place.name) for place in places])
        images = {composed(place.name): image_files(place) for place in places}
        if empty := [name for name, files in images.items() if not files]:
            msg = f"references: {folder} has no images of {listed(empty)}. Expected a few of each class."
            raise ValueError(msg)
        return dict(sorted(images.items()))

    def label(self, subsets: Sequence[pd.DataFrame]) -> list[str]:
        """Set the classes in the samples of datasets, the first of which has the training images.

        The same images get the same classes in every process.

        Args:
            subsets: Samples with ``image_path``; ``class_index`` and ``class_name`` are replaced.

        Returns:
            Names of the classes.

        Raises:
            ValueError: If the backbone does not accept the size of the images, if there are too few images to cluster,
                or as in :meth:`reference_images`.
            OSError: If an image cannot be read.
        """
        layer = available_layers(self.backbone)[-2]
        encoder = PyramidEncoder(self.backbone, {layer: [1.0]}, backbone_weights=self.backbone_weights)
        size = accepted_size(encoder)
        transform = Compose([Resize(size, antialias=True), Normalize(*image_statistics(self.backbone))])
        described = [describe(encoder, transform, samples["image_path"].to_list()) for samples in subsets]
        if self.kind == "references":
            images = self.reference_images()
            names = list(images)
            rows = describe(encoder, transform, [str(path) for files in images.values() for path in files])
            numbers = np.arange(len(names))
            classifier: Classifier = NearestCentroid().fit(
                rows, np.repeat(numbers, [len(files) for files in images.values()])
            )
        else:
            clustering = cluster(described[0], self.num_clusters)
            names = [f"cluster_{index:02}" for index in range(clustering.n_clusters)]
            classifier, numbers = clustering, ranks_of_first(clustering.labels_)
        for samples, rows in zip(subsets, described, strict=True):
            samples["class_index"] = numbers[classifier.predict(rows)]
            samples["class_name"] = [names[index] for index in samples["class_index"]]
        return names


@torch.no_grad()
def describe(encoder: PyramidEncoder, transform: Compose, paths: Sequence[str]) -> np.ndarray:
    """Describe images by the mean of their features, normalised to length 1.

    Args:
        encoder: The frozen backbone.
        transform: Resizes and normalises.
        paths: Files of the images.

    Returns:
        A row for each, shape (number, D).

    Raises:
        OSError: If an image cannot be read, or has grey values of more than 8 bits.
    """
    rows = []
    for path in track(paths, "Labelling the images"):
        (features,) = encoder(transform(read_checked(path)).unsqueeze(0))
        rows.append(F.normalize(features.mean(dim=(2, 3)), dim=1))
    return torch.cat(rows).double().numpy()


def accepted_size(encoder: PyramidEncoder) -> tuple[int, int]:
    """Height and width to resize images to: :data:`IMAGE_SIZE`, rounded down to whole patches of a transformer.

    Raises:
        ValueError: If the backbone does not accept it.
    """
    patches = getattr(encoder.extractor.feature_extractor, "patch_embed", None)
    side = patches.patch_size[0] if isinstance(patches, PatchEmbed) else 1
    size = (IMAGE_SIZE // side * side, IMAGE_SIZE // side * side)
    encoder.check_image_size(size)
    return size


def ranks_of_first(clusters: np.ndarray) -> np.ndarray:
    """Number clusters by the first image of each; k-means numbers them arbitrarily.

    Args:
        clusters: Cluster of each image, shape (number,), every one from 0 on at least once.

    Returns:
        For each cluster, its place in the order of the first images, shape (number of clusters,).
    """
    _, first = np.unique(clusters, return_index=True)
    return first.argsort().argsort()


def cluster(descriptions: np.ndarray, number: int | None) -> KMeans:
    """Cluster descriptions by k-means.

    Args:
        descriptions: A row for each image.
        number: Number of clusters; ``None`` tries 2 to :data:`MOST_CLUSTERS` and selects the best silhouette.

    Returns:
        The clustering.

    Raises:
        ValueError: If there are too few images.
    """
    distinct = len(np.unique(descriptions, axis=0))
    if distinct < (number or 3):
        msg = (
            f"Expected at least {number or 3} different training images to cluster, got {distinct}. Give more images, "
        )
        msg += "or a smaller num_clusters."
        raise ValueError(msg)
    numbers = range(2, min(MOST_CLUSTERS, distinct - 1) + 1) if number is None else [number]
    clusterings = [KMeans(count, n_init=10, random_state=0).fit(descriptions) for count in numbers]
    if number is not None:
        return clusterings[0]
    return max(clusterings, key=lambda clustering: float(silhouette_score(descriptions, clustering.labels_)))
