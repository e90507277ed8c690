# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Kinds of defects from a few known examples; they do not change scores.

The descriptor of an image under its class y describes how its most anomalous positions differ from normal ones. It is
the mean of their whitened residuals L_y^-1 (z - mu_y), concatenated over the levels, with the signed square root of
every component, so that a few large ones do not dominate (power normalisation: Perronnin et al., ECCV 2010). An image
gets the kind of the known defects whose mean descriptor has the smallest cosine distance to its own.

Dimensions: B images, N known defects of a class, k kinds of them, D channels of all levels together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional as F

from anomalib_hgad.common.checks import check_folder_names
from anomalib_hgad.common.precision import full_precision, no_autocast
from anomalib_hgad.data.images import read_checked
from anomalib_hgad.data.reserved_names import OTHER
from anomalib_hgad.models.hgad.flows import Latents
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture
from anomalib_hgad.models.hgad.torch_model import HgadModel, HgadPrediction

if TYPE_CHECKING:
    from anomalib_hgad.models.hgad.lightning_model import Hgad

KNOWN_KEY = "hgad_known_defects"
"""Key of the known defects in a checkpoint."""

LIMIT = 0.7
"""Cosine distance beyond which a defect has none of the known kinds, if no kind has two images to estimate it from."""


@dataclass(frozen=True)
class KnownDefects:
    """Known defects of a class.

    Attributes:
        kinds: Kind of each defect.
        descriptors: Descriptor of each defect, of length 1, shape (N, D).
    """

    kinds: list[str]
    descriptors: torch.Tensor

    @cached_property
    def limit(self) -> float:
        """Cosine distance to the mean of a kind beyond which an image does not have it.

        The largest one from a known defect to the mean of the others of its kind; :data:`LIMIT` if no kind has two.
        """
        own, has_others = self._to_own_kind()
        return float(own[has_others].max()) if has_others.any() else LIMIT

    def by_the_others(self) -> tuple[int, int]:
        """Count the known defects that the others would give their own kind, and those whose kind has others."""
        own, has_others = self._to_own_kind()
        nearest = self._without_themselves.amin(dim=1)
        return int((own == nearest)[has_others].sum()), int(has_others.sum())

    def nearest(self, descriptor: torch.Tensor) -> tuple[str, float]:
        """Return the kind with the nearest mean.

        Args:
            descriptor: Descriptor of an image of the class, shape (D,).

        Returns:
            The kind, and the cosine distance to its mean.
        """
        distance, index = (1 - F.normalize(self._sums, dim=1) @ descriptor).min(dim=0)
        return self._names[int(index)], float(distance)

    def kind_of(self, descriptor: torch.Tensor) -> str:
        """Kind of the defect of an image: the nearest one, or :data:`~anomalib_hgad.data.batch.OTHER` beyond the limit.

        Args:
            descriptor: As in :meth:`nearest`.

        Returns:
            The kind.
        """
        kind, distance = self.nearest(descriptor)
        return kind if distance <= self.limit else OTHER

    @cached_property
    def _names(self) -> list[str]:
        """The kinds, k."""
        return list(dict.fromkeys(self.kinds))

    @cached_property
    def _members(self) -> torch.Tensor:
        """Which kind each known defect has, bool, shape (N, k)."""
        return torch.tensor([[kind == name for name in self._names] for kind in self.kinds])

    @cached_property
    def _sums(self) -> torch.Tensor:
        """Sums of the descriptors of the kinds, shape (k, D)."""
        return self._members.float().mT @ self.descriptors

    @cached_property
    def _without_themselves(self) -> torch.Tensor:
        """Cosine distances of the known defects to the means of the kinds that the others have, shape (N, k)."""
        sums = self._sums - self._members.unsqueeze(2) * self.descriptors.unsqueeze(1)
        return 1 - (F.normalize(sums, dim=2) @ self.descriptors.unsqueeze(2)).squeeze(2)

    def _to_own_kind(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the distances to their own kinds, and whether a kind has others to take the mean of, shapes (N,)."""
        has_others = self._members[:, self._members.sum(dim=0) > 1].any(dim=1)
        return self._without_themselves[self._members], has_others


@torch.no_grad()
def descriptors(
    model: HgadModel, latents: Sequence[Latents], anomaly_map: torch.Tensor, class_index: torch.Tensor
) -> torch.Tensor:
    """Describe how the most anomalous positions of some images differ from normal ones of their classes.

    Args:
        model: A model with full covariances. Its ``score_share`` is the share of the positions that is used, at least
            one of each level.
        latents: Latents of the levels.
        anomaly_map: Maps of the images under the classes, shape (B, 1, height, width).
        class_index: Classes, int64, shape (B,).

    Returns:
        Descriptors of length 1, in float32, shape (B, D).
    """
    of_levels = []
    with no_autocast(anomaly_map):
        for level, prior in zip(latents, cast("Sequence[HierarchicalGaussianMixture]", model.priors), strict=True):
            # As the maps of the levels were upsampled: a position gets the value of its own pixel.
            on_grid = F.interpolate(
                full_precision(anomaly_map), size=level.grid, mode="bilinear", align_corners=True
            ).flatten(1)
            positions = on_grid.topk(max(1, round(model.score_share * on_grid.shape[1])), dim=1).indices
            z = full_precision(level.z).take_along_dim(positions.unsqueeze(-1), dim=1)
            whitening = cast("torch.Tensor", prior.class_whitening)[class_index]
            # The mean before the product, which is linear.
            residual = z.mean(dim=1) - prior.class_centers[class_index]
            of_levels.append((whitening @ residual.unsqueeze(-1)).squeeze(-1))
        residuals = torch.cat(of_levels, dim=1).float()
        return F.normalize(residuals.sign() * residuals.abs().sqrt(), dim=1)


def named_kinds(
    model: HgadModel,
    latents: Sequence[Latents],
    anomaly_map: torch.Tensor,
    class_index: torch.Tensor,
    class_names: Sequence[str],
    known: Mapping[str, KnownDefects],
) -> list[str]:
    """Return the kinds that the defects of images have, if they have one.

    Args:
        model: As in :func:`descriptors`.
        latents: Latents of the levels.
        anomaly_map: Maps of the images under the classes, shape (B, 1, height, width).
        class_index: Classes, int64, shape (B,).
        class_names: Names of these classes, B.
        known: Known defects by class name.

    Returns:
        A kind for each image, :data:`~anomalib_hgad.data.batch.OTHER`, or ``""`` if its class has no known defects.
    """
    kinds = [""] * len(class_names)
    if rows := [row for row, name in enumerate(class_names) if name in known]:
        of_rows = [Latents(level.z[rows], level.log_det[rows], level.grid) for level in latents]
        of_images = descriptors(model, of_rows, anomaly_map[rows], class_index[rows]).cpu()
        for row, descriptor in zip(rows, of_images, strict=True):
            kinds[row] = known[class_names[row]].kind_of(descriptor)
    return kinds


@torch.no_grad()
def name_defects(module: Hgad, images: Mapping[str, Mapping[str, Sequence[str | Path]]]) -> dict[str, KnownDefects]:
    """Describe known defects; see :meth:`anomalib_hgad.Hgad.name_defects`."""
    _check(module, images)
    model, transform = module.model, getattr(module.pre_processor, "transform", None)
    was_training = module.training
    module.eval()
    try:
        known = {}
        for name, of_class in images.items():
            class_index = torch.tensor([module.class_names.index(name)], device=module.device)
            of_images = []
            for path in (path for paths in of_class.values() for path in paths):
                image = read_checked(path).unsqueeze(0).to(module.device)
                image = image if transform is None else transform(image)
                readings = model.read(model.encoder(image))
                _, given = model.predict_readings(readings, image.shape[-2:], class_index)
                anomaly_map = cast("HgadPrediction", given).anomaly_map
                latents = [reading.latents for reading in readings]
                of_images.append(descriptors(model, latents, anomaly_map, class_index))
            kinds = [kind for kind, paths in of_class.items() for _ in paths]
            known[name] = KnownDefects(kinds, torch.cat(of_images).cpu())
    finally:
        module.train(was_training)
    return known


def _check(module: Hgad, images: Mapping[str, Mapping[str, Sequence[str | Path]]]) -> None:
    """Check that defects of some images can be named.

    Raises:
        ValueError: If they cannot be named.
    """
    model = module.model
    if model.prior_kind == "single_gaussian" or model.covariance == "identity":
        has = "prior='single_gaussian'" if model.prior_kind == "single_gaussian" else "covariance='identity'"
        msg = "Naming defects needs the covariance of each product: expected a model with covariance='full' and "
        msg += f"classes, as Hgad has by default; this one has {has}."
        raise ValueError(msg)
    if unknown := [name for name in images if name not in module.class_names]:
        msg = f"The model does not know {', '.join(map(repr, unknown))}: expected known defects of "
        msg += f"{', '.join(module.class_names) or 'no product, as it was not trained'}."
        raise ValueError(msg)
    for name, of_class in images.items():
        check_folder_names(f"a kind of defect of {name}", of_class)
        if OTHER in of_class:
            msg = f"{name}: the name {OTHER!r} is reserved for defects of none of the known kinds. Rename this kind."
            raise ValueError(msg)
        if not of_class or (empty := [kind for kind, paths in of_class.items() if not paths]):
            msg = f"Expected images of known defects of {name}, got none"
            msg += f" of {', '.join(map(repr, empty))}." if of_class else "."
            raise ValueError(msg)


def save_known(known: Mapping[str, KnownDefects], checkpoint: dict[str, Any]) -> None:
    """Save known defects in a checkpoint."""
    checkpoint[KNOWN_KEY] = {name: asdict(of_class) for name, of_class in known.items()}


def known_in(checkpoint: Mapping[str, Any]) -> dict[str, KnownDefects]:
    """Return the known defects of a checkpoint.

    Raises:
        ValueError: If the name of a kind cannot be a folder name.
    """
    known = {name: KnownDefects(**of_class) for name, of_class in checkpoint.get(KNOWN_KEY, {}).items()}
    check_folder_names("a kind of defects of the checkpoint", (kind for of in known.values() for kind in of.kinds))
    return known
