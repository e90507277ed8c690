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
from anomalib.data.utils import read_image
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestCentroid
from torch.nn import functional as F
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_hgad.common.backbones import available_layers, image_statistics
from anomalib_hgad.common.checks import check_choice
from anomalib_hgad.common.encoder import PyramidEncoder
from anomalib_hgad.common.progress import track
from anomalib_hgad.data.folders import image_files
from anomalib_hgad.data.reading import naming_errors

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
        ValueError: If a setting is out of range, or cannot be combined with the kind.
        FileNotFoundError: If the folder of references does not exist.
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

    @property
    def reference_names(self) -> list[str]:
        """Names of the classes of the reference images: the subfolders."""
        folder = Path(str(self.references))
        if not folder.is_dir():
            msg = f"references: no folder at {folder}. Expected one with a subfolder of images for each class."
            raise FileNotFoundError(msg)
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not names:
            msg = f"references: {folder} has no subfolder. Expected one with a few images for each class."
            raise ValueError(msg)
        return names

    def _references_of(self, name: str) -> list[Path]:
        """Reference images of a class."""
        folder = Path(str(self.references)) / name
        if not (files := image_files(folder)):
            msg = f"references: {folder} has no images. Expected a few of the class."
            raise ValueError(msg)
        return files

    def label(self, subsets: Sequence[pd.DataFrame]) -> list[str]:
        """Set the classes in the samples of datasets, the first of which has the training images.

        The same images get the same classes in every process.

        Args:
            subsets: Samples with ``image_path``; ``class_index`` and ``class_name`` are replaced.

        Returns:
            Names of the classes.
        """
        layer = available_layers(self.backbone)[-2]
        encoder = PyramidEncoder(self.backbone, {layer: [1.0]}, backbone_weights=self.backbone_weights)
        transform = Compose(
            [Resize((IMAGE_SIZE, IMAGE_SIZE), antialias=True), Normalize(*image_statistics(self.backbone))]
        )
        described = [describe(encoder, transform, samples["image_path"].to_list()) for samples in subsets]
        if self.kind == "references":
            names = self.reference_names
            files = [self._references_of(name) for name in names]
            rows = describe(encoder, transform, [str(path) for of_class in files for path in of_class])
            classifier: Classifier = NearestCentroid().fit(
                rows, np.repeat(np.arange(len(names)), list(map(len, files)))
            )
        else:
            clustering = cluster(described[0], self.num_clusters)
            names = [f"cluster_{index:02}" for index in range(clustering.n_clusters)]
            classifier = clustering
        for samples, rows in zip(subsets, described, strict=True):
            samples["class_index"] = classifier.predict(rows)
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
        OSError: If an image cannot be read.
    """
    rows = []
    for path in track(paths, "Labelling the images"):
        with naming_errors(path):
            image = read_image(path, as_tensor=True)
        (features,) = encoder(transform(image).unsqueeze(0))
        rows.append(F.normalize(features.mean(dim=(2, 3)), dim=1))
    return torch.cat(rows).double().numpy()


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
