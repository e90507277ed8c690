# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Descriptors of defects, and the kinds that they name, on latents that are drawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from anomalib_hgad.models.hgad.defect_kinds import (
    LIMIT,
    KnownDefects,
    descriptors,
    known_in,
    named_kinds,
    save_known,
)
from anomalib_hgad.models.hgad.flows import Latents
from anomalib_hgad.models.hgad.gaussians import RIDGE
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture

DIMS = (5, 3)
GRIDS = ((6, 4), (3, 2))
CLASSES = 3
IMAGES = 4
SIZE = (24, 16)


class Drawn:
    """A model of Gaussians, latents and maps; all but the model as NumPy knows them."""

    def __init__(self, score_share: float) -> None:
        rng = np.random.default_rng(0)
        self.share = score_share
        self.means = [rng.normal(size=(CLASSES, dim)) for dim in DIMS]
        mixings = [rng.normal(size=(CLASSES, dim, dim)) for dim in DIMS]
        self.covariances = [mixing @ mixing.transpose(0, 2, 1) for mixing in mixings]
        self.latents = [rng.normal(size=(IMAGES, *grid, dim)) for grid, dim in zip(GRIDS, DIMS, strict=True)]
        self.maps = rng.normal(size=(IMAGES, *SIZE))
        self.classes = np.array([2, 0, 1, 0])

    @property
    def arguments(self) -> tuple[Any, list[Latents], torch.Tensor, torch.Tensor]:
        priors = []
        for mean, covariance in zip(self.means, self.covariances, strict=True):
            prior = HierarchicalGaussianMixture(CLASSES, 1, mean.shape[1], "full").double()
            prior.set_gaussians(torch.full((CLASSES,), 100), torch.from_numpy(mean), torch.from_numpy(covariance))
            priors.append(prior)
        latents = [
            Latents(torch.from_numpy(level).flatten(1, 2), torch.zeros(level.shape[:3]).flatten(1), grid)
            for level, grid in zip(self.latents, GRIDS, strict=True)
        ]
        maps = torch.from_numpy(self.maps).unsqueeze(1)
        return SimpleNamespace(priors=priors, score_share=self.share), latents, maps, torch.from_numpy(self.classes)

    def descriptor(self, image: int) -> np.ndarray:
        """Position by position: its place in the map, its residual by a triangular system, and the mean at last."""
        index, parts = self.classes[image], []
        for mean, covariance, level in zip(self.means, self.covariances, self.latents, strict=True):
            rows, columns = level.shape[1:3]
            places = np.meshgrid(*(np.linspace(0, s - 1, n) for s, n in zip(SIZE, (rows, columns), strict=True)))
            heights = map_coordinates(self.maps[image], [place.T.ravel() for place in places], order=1)
            highest = np.argsort(-heights)[: max(1, round(self.share * rows * columns))]
            ridge = RIDGE * np.trace(covariance[index]) / len(covariance[index])
            factor = np.linalg.cholesky(covariance[index] + ridge * np.eye(len(covariance[index])))
            vectors = level[image].reshape(rows * columns, -1)[highest]
            parts.append(np.mean([np.linalg.solve(factor, vector - mean[index]) for vector in vectors], axis=0))
        residual = np.concatenate(parts)
        descriptor = np.copysign(np.sqrt(np.abs(residual)), residual)
        return descriptor / np.linalg.norm(descriptor)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_descriptor_is_the_mean_whitened_residual_of_the_most_anomalous_positions(share: float) -> None:
    drawn = Drawn(share)
    actual = descriptors(*drawn.arguments)
    assert actual.dtype == torch.float32
    expected = np.stack([drawn.descriptor(image) for image in range(IMAGES)])
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-5)


def at(*degrees: float) -> torch.Tensor:
    """Unit vectors of the plane."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack((angles.cos(), angles.sin()), dim=1)


def distance(degrees: float) -> float:
    """Cosine distance of two vectors with this angle between them."""
    return 1 - float(np.cos(np.deg2rad(degrees)))


CRACK_AND_RUST = KnownDefects(["crack", "rust", "crack", "crack", "rust"], at(0, 90, 10, 34, 91))
"""Their means are at 14.6 and 90.5 degrees; that of the cracks at 0 and 10 is at 5, 29 from the one at 34."""


def test_limit_is_the_largest_distance_to_the_mean_of_the_others_of_a_kind() -> None:
    assert CRACK_AND_RUST.limit == pytest.approx(distance(29), abs=1e-6)


@pytest.mark.parametrize("kinds", [["crack"], ["crack", "rust"]])
def test_without_two_of_a_kind_the_limit_is_the_stated_one(kinds: list[str]) -> None:
    known = KnownDefects(kinds, at(*range(len(kinds))))
    assert known.limit == LIMIT
    assert known.by_the_others() == (0, 0)


def test_one_of_a_kind_does_not_set_the_limit() -> None:
    """Without itself its kind has no mean."""
    known = KnownDefects(["crack", "oil", "crack"], at(0, 180, 20))
    assert known.limit == pytest.approx(distance(20), abs=1e-6)


@pytest.mark.parametrize(
    ("degrees", "kind"),
    [
        *((-15, "other"), (-14, "crack"), (34, "crack"), (43.5, "crack"), (44, "other")),
        *((61, "other"), (62, "rust"), (119, "rust"), (120, "other"), (270, "other")),
    ],
)
def test_kind_is_the_one_whose_mean_is_the_nearest(degrees: float, kind: str) -> None:
    assert CRACK_AND_RUST.kind_of(at(degrees)[0]) == kind


def test_known_defects_are_tried_on_one_another() -> None:
    """The crack at 60 is 55 from the mean of the others and 8 from that of the rust; oil has none of its kind."""
    known = KnownDefects(["crack", "crack", "rust", "crack", "rust", "oil"], at(0, 10, 50, 60, 54, 200))
    assert known.by_the_others() == (4, 5)


def test_only_images_of_classes_with_known_defects_are_named() -> None:
    drawn = Drawn(0.2)
    names = [("bolt", "gear", "nut")[index] for index in drawn.classes]
    known = {
        name: KnownDefects([f"that of {image}"], torch.from_numpy(drawn.descriptor(image)).float().unsqueeze(0))
        for image, name in enumerate(names)
        if image in {0, 1}
    }
    first = 1 - drawn.descriptor(1) @ drawn.descriptor(3)
    expected = ["that of 0", "that of 1", "", "that of 1" if first <= LIMIT else "other"]
    assert named_kinds(*drawn.arguments, names, known) == expected


def test_known_defects_are_read_from_a_checkpoint_as_plain_data(tmp_path: Path) -> None:
    checkpoint: dict[str, Any] = {}
    save_known({"bolt": CRACK_AND_RUST}, checkpoint)
    torch.save(checkpoint, tmp_path / "model.ckpt")
    known = known_in(torch.load(tmp_path / "model.ckpt", weights_only=True))
    assert list(known) == ["bolt"]
    assert known["bolt"].kinds == CRACK_AND_RUST.kinds
    assert torch.equal(known["bolt"].descriptors, CRACK_AND_RUST.descriptors)
    assert known_in({}) == {}
