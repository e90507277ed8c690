# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Classes added to a fitted model, and classes removed from it: all others keep their scores, bit for bit.

A class is a row of constants: its Gaussian on every level, the Gaussians that it is contrasted with, and the scales of
its scores. What the classes share, the flows and the covariance that chooses the candidates, stays as it was when they
were fitted together.

The Gaussians of the classes come first, then the backgrounds: Gaussians that classes are contrasted with but that are
no class, such as one of a removed class.

Dimensions: K classes, A added ones, N Gaussians, R of which a class is contrasted with, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from anomalib_hgad.models.hgad.anomaly_map import MAXIMUM_SCORES
from anomalib_hgad.models.hgad.calibration import ScoreCalibration
from anomalib_hgad.models.hgad.gaussians import RIDGE
from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.models.hgad.rows import append_rows, keep_rows
from anomalib_hgad.models.hgad.torch_model import RIVAL_CLASSES, HgadModel

CLOSE_DEVIATIONS = 4.0
"""Lead of a class over another, in standard deviations, above which the other is not expected to get its images."""

ADDED_KEY = "hgad_added_classes"
"""Key of the number of added classes in a checkpoint."""


class ClassGaussians(NamedTuple):
    """Gaussians of some classes on the latents of a level.

    Attributes:
        means: Shape (A, D).
        covariances: Shape (A, D, D).
    """

    means: torch.Tensor
    covariances: torch.Tensor


def check_can_change(model: HgadModel) -> None:
    """Check that classes can be added to a model and removed from it.

    Args:
        model: The model.

    Raises:
        ValueError: If its densities or scores are not separate for each class.
    """
    for right, expected, got in (
        (model.prior_kind != "single_gaussian", "classes", "prior='single_gaussian', which has one Gaussian for all"),
        (model.covariance == "full", "covariance='full'", f"covariance={model.covariance!r}"),
        (model.score not in MAXIMUM_SCORES, "score='contrast' or 'standardized'", f"score={model.score!r}"),
    ):
        if not right:
            msg = f"Adding or removing products needs a model with {expected}; this one has {got}. Train one with "
            msg += "Hgad's defaults, or train this one again on the products that it should know."
            raise ValueError(msg)


def set_shape(model: HgadModel, checkpoint: Mapping[str, Any], num_classes: int) -> None:
    """Give a model as many rows of every kind as the model of a checkpoint has.

    Args:
        model: The model; its rows are initialised again if their numbers differ.
        checkpoint: The checkpoint.
        num_classes: K of the checkpoint.
    """
    centers = checkpoint["state_dict"].get("model.priors.0.class_centers")
    backgrounds = 0 if centers is None or model.num_classes != num_classes else max(0, len(centers) - num_classes)
    added = checkpoint.get(ADDED_KEY, 0)
    if (model.num_added, _num_backgrounds(model)) != (added, backgrounds):
        model.set_num_classes(num_classes, added, backgrounds)


def append_classes(
    model: HgadModel,
    gaussians: Sequence[ClassGaussians],
    calibration: ScoreCalibration,
    novelty: NoveltyScale,
    rivals: torch.Tensor | None = None,
) -> None:
    """Add classes to a model, after its own.

    Args:
        model: The model.
        gaussians: Gaussians of the classes on every level.
        calibration: Constants of their scores.
        novelty: Scale of their novelty.
        rivals: Gaussians of the model that they are contrasted with, int64, shape (A, R), -1 for a missing one.
            ``None`` makes backgrounds of the classes most similar to each of them.
    """
    old, added, backgrounds = model.num_classes, calibration.num_classes, _num_backgrounds(model)
    order = [*range(old), *range(old + backgrounds, old + backgrounds + added), *range(old, old + backgrounds)]
    for prior, of_level in zip(model.level_priors, gaussians, strict=True):
        prior.append(*of_level)
        prior.keep(order, prior.num_classes)
    for constants, of_added in ((model.calibration, calibration), (model.novelty, novelty)):
        append_rows(constants, dict(of_added.named_buffers()))
    model.num_added += added
    of_old = _renumbered(model.class_rivals, order)
    of_new = _new_backgrounds(model, gaussians) if rivals is None else _renumbered(rivals, order)
    model.rivals = _stacked(of_old, of_new, min(RIVAL_CLASSES, len(model.level_priors[0].class_centers) - 1))


def likely_to_move(model: HgadModel, first: int) -> list[tuple[int, int]]:
    """Find classes whose normal images may be assigned to an added class, from their Gaussians alone.

    The log-density of a position of class y is higher under y than under k by E_y log p(z|y) - E_y log p(z|k) on
    average. If that is less than :data:`CLOSE_DEVIATIONS` standard deviations of the typicality of y, some images of y
    may be assigned to k.

    Args:
        model: The model.
        first: The first of the added classes.

    Returns:
        Pairs of an older class and an added one.
    """
    kept = [
        (prior.class_centers.detach().double()[:first], prior.covariances()[:first]) for prior in model.level_priors
    ]
    densities = model.mean_log_densities(kept)[:, : model.num_classes] / len(kept)
    lead = (densities.diagonal().unsqueeze(1) - densities).cpu()
    close = lead[:, first:] < CLOSE_DEVIATIONS * model.novelty.deviation[:first].double().cpu().unsqueeze(1)
    return [(old, first + added) for old, added in close.nonzero().tolist()]


def remove_class(model: HgadModel, index: int) -> None:
    """Remove a class from a model.

    Its Gaussian stays as a background as long as other classes are contrasted with it: their scores do not change.

    Args:
        model: The model, of at least two classes.
        index: The class.
    """
    fitted = model.num_classes - model.num_added
    rivals = model.class_rivals[[row for row in range(model.num_classes) if row != index]]
    classes = [row for row in range(model.num_classes) if row != index]
    last = range(model.num_classes, model.num_classes + _num_backgrounds(model))
    order = [*classes, *(row for row in (*last, index) if (rivals == row).any())]
    fitted -= index < fitted
    model.num_added = len(classes) - fitted if fitted else 0
    for prior in model.level_priors:
        prior.keep(order, fitted or len(classes))
    for constants in (model.calibration, model.novelty):
        keep_rows(constants, classes, *dict(constants.named_buffers()))
    # A class with fewer rivals has itself in the place of the missing ones, in the last columns.
    model.rivals = _renumbered(rivals, order)[:, : len(order) - 1]


def join_classes(model: HgadModel) -> bool:
    """Mark all classes of a model as fitted together, before they are fitted again, and forget the removed ones.

    Args:
        model: The model.

    Returns:
        Whether this changed anything, so that the classes have to be fitted again.
    """
    if not model.num_added and not _num_backgrounds(model):
        return False
    calibration, novelty, classes = model.calibration, model.novelty, range(model.num_classes)
    for prior in model.level_priors:
        prior.keep(classes, model.num_classes)
    priors = model.priors
    model.set_num_classes(model.num_classes)
    model.priors, model.calibration, model.novelty = priors, calibration, novelty
    model.to(calibration.location.device)
    return True


def _new_backgrounds(model: HgadModel, gaussians: Sequence[ClassGaussians]) -> torch.Tensor:
    """Add backgrounds for the last classes of a model: the classes most similar to each of them, widened.

    The ridge of a Gaussian depends only on how the classes that were fitted together vary. In directions in which only
    an added class varies, its latents would be arbitrarily unlikely under the other classes, and the contrast would be
    nothing but the distance from them. The ridge of a background therefore grows by the added class's share of the
    total variance, as in joint training: Sigma_r + r (C + K/(K+1) m m^T) / (K+1), with r the ridge of Sigma_r, C the
    covariance of the added class, and m its distance from the mean of the K classes' centres.

    Args:
        model: The model, with the classes.
        gaussians: Their Gaussians on every level.

    Returns:
        Rivals of these classes, shape (A, R).
    """
    added = len(gaussians[0].means)
    old, first = model.num_classes - added, len(model.level_priors[0].class_centers)
    own = torch.arange(old, model.num_classes, device=model.class_rivals.device)
    densities = model.mean_log_densities(gaussians)[:, : model.num_classes].scatter(1, own.unsqueeze(1), -torch.inf)
    most_alike = densities.topk(min(RIVAL_CLASSES, model.num_classes - 1), dim=-1).indices
    rows = most_alike.flatten().tolist()
    for prior, of_level in zip(model.level_priors, gaussians, strict=True):
        centers = prior.class_centers.detach()
        distance = (of_level.means - centers[:old].to(of_level.means).mean(dim=0)).unsqueeze(-1)
        seen = (of_level.covariances + old / (old + 1) * distance @ distance.mT) / (old + 1)
        covariances = prior.covariances()[rows]
        variance = covariances.diagonal(dim1=-2, dim2=-1).mean(dim=-1).view(-1, 1, 1)
        widened = covariances + RIDGE * variance * seen.to(covariances).repeat_interleave(most_alike.shape[1], dim=0)
        prior.append(centers[rows], widened, ridge=0)
    return first + torch.arange(len(rows), device=own.device).view_as(most_alike)


def _stacked(of_old: torch.Tensor, of_added: torch.Tensor, count: int) -> torch.Tensor:
    """Stack the rivals of all classes, R = count. A class with fewer has itself in the place of the missing ones."""
    rivals = torch.cat([F.pad(rivals, (0, count - rivals.shape[1]), value=-1) for rivals in (of_old, of_added)])
    themselves = torch.arange(len(rivals), device=rivals.device).unsqueeze(1)
    return torch.where(rivals < 0, themselves, rivals)


def _renumbered(rivals: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """Renumber Gaussians after a change of their order; -1 stays."""
    numbers = torch.full((max(order) + 2,), -1, device=rivals.device)
    numbers[list(order)] = torch.arange(len(order), device=rivals.device)
    return numbers[rivals]


def _num_backgrounds(model: HgadModel) -> int:
    return len(model.level_priors[0].class_centers) - model.num_classes
