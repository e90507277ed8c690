# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Classes that come to a model after it was fitted, and classes that go: all others keep their scores, bit for bit.

A class is a row of constants: its Gaussian of every level, the classes that it is contrasted with, the scales of its
scores. What classes have in common, which is the flows and the covariance by which candidates are chosen, stays as it
was when they were fitted together.

Dimensions: K classes, A added ones, N Gaussians, those of removed classes among them, R classes one is contrasted with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from anomalib_hgad.models.hgad.anomaly_map import MAXIMUM_SCORES
from anomalib_hgad.models.hgad.calibration import ScoreCalibration
from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.models.hgad.rows import append_rows, keep_rows
from anomalib_hgad.models.hgad.torch_model import RIVAL_CLASSES, HgadModel

CLOSE_DEVIATIONS = 4.0
"""Lead of a class over another one, in standard deviations, from which on no image of it is expected to be lost."""

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
    """Check that the classes of a model can come and go.

    Args:
        model: The model.

    Raises:
        ValueError: If its densities or scores are not of each class alone.
    """
    for right, expected, got in (
        (model.prior_kind != "single_gaussian", "classes", "prior='single_gaussian', which has one Gaussian for all"),
        (model.covariance == "full", "covariance='full'", f"covariance={model.covariance!r}"),
        (model.score not in MAXIMUM_SCORES, "score='contrast' or 'standardized'", f"score={model.score!r}"),
    ):
        if not right:
            msg = f"Products are added to and removed from a model with {expected}; this one has {got}. Train one with "
            msg += "Hgad's defaults, or train this one anew on the products that it shall know."
            raise ValueError(msg)


def set_shape(model: HgadModel, checkpoint: Mapping[str, Any], num_classes: int) -> None:
    """Give a model as many rows of every kind as the one that a checkpoint is of.

    Args:
        model: The model; what it has in these rows is lost if it had others.
        checkpoint: The checkpoint.
        num_classes: K of the checkpoint.
    """
    centers = checkpoint["state_dict"].get("model.priors.0.class_centers")
    removed = 0 if centers is None or model.num_classes != num_classes else max(0, len(centers) - num_classes)
    added = checkpoint.get(ADDED_KEY, 0)
    if (model.num_added, _num_removed(model)) != (added, removed):
        model.set_num_classes(num_classes, added, removed)


def append_classes(
    model: HgadModel,
    gaussians: Sequence[ClassGaussians],
    calibration: ScoreCalibration,
    novelty: NoveltyScale,
    rivals: torch.Tensor | None = None,
) -> None:
    """Add classes to a model, after those that it has.

    Args:
        model: The model.
        gaussians: Gaussians of the classes on every level.
        calibration: Constants of their scores.
        novelty: Scale of their novelty.
        rivals: Classes that they are contrasted with, int64, shape (A, R). ``None`` takes those most like them.
    """
    old, removed = model.num_classes, _num_removed(model)
    order = [*range(old), *range(old + removed, old + removed + calibration.num_classes), *range(old, old + removed)]
    for prior, of_level in zip(model.level_priors, gaussians, strict=True):
        prior.append(*of_level)
        prior.keep(order, prior.num_classes)
    for constants, added in ((model.calibration, calibration), (model.novelty, novelty)):
        append_rows(constants, dict(added.named_buffers()))
    model.num_added += calibration.num_classes
    _set_rivals(model, _renumbered(model.class_rivals, order), rivals, gaussians)


def likely_to_move(model: HgadModel, first: int) -> list[tuple[int, int]]:
    """Classes whose normal images may be taken for one that was added, by what is kept of them.

    A position of class y has, on average, E_y log p(z|y) - E_y log p(z|k) more under its own class than under k. Where
    that is less than :data:`CLOSE_DEVIATIONS` standard deviations of the typicality of y, k may have some images.

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
    """Let a model not know a class any more.

    Its Gaussian stays as long as other classes are contrasted with it: their scores do not change.

    Args:
        model: The model, of at least two classes.
        index: The class.
    """
    fitted = model.num_classes - model.num_added
    rivals = model.class_rivals[[row for row in range(model.num_classes) if row != index]]
    classes = [row for row in range(model.num_classes) if row != index]
    last = range(model.num_classes, model.num_classes + _num_removed(model))
    order = [*classes, *(row for row in (*last, index) if (rivals == row).any())]
    fitted -= index < fitted
    model.num_added = len(classes) - fitted if fitted else 0
    for prior in model.level_priors:
        prior.keep(order, fitted or len(classes))
    for constants in (model.calibration, model.novelty):
        keep_rows(constants, classes, *dict(constants.named_buffers()))
    # A row without as many others has itself in their place, in the last columns.
    model.rivals = _renumbered(rivals, order)[:, : len(order) - 1]


def join_classes(model: HgadModel) -> bool:
    """Let all classes of a model count as fitted together, before they are, and forget the removed ones.

    Args:
        model: The model.

    Returns:
        Whether that changed anything, so that they have to be fitted.
    """
    if not model.num_added and not _num_removed(model):
        return False
    calibration, novelty, classes = model.calibration, model.novelty, range(model.num_classes)
    for prior in model.level_priors:
        prior.keep(classes, model.num_classes)
    priors = model.priors
    model.set_num_classes(model.num_classes)
    model.priors, model.calibration, model.novelty = priors, calibration, novelty
    model.to(calibration.location.device)
    return True


def _set_rivals(
    model: HgadModel, of_old: torch.Tensor, of_added: torch.Tensor | None, gaussians: Sequence[ClassGaussians]
) -> None:
    added = len(gaussians[0].means)
    count = min(RIVAL_CLASSES, len(model.level_priors[0].class_centers) - 1)
    own = torch.arange(model.num_classes - added, model.num_classes, device=of_old.device)
    if of_added is not None:
        count = of_added.shape[1]
    else:
        densities = model.mean_log_densities(gaussians)
        of_added = densities.scatter(1, own.unsqueeze(1), -torch.inf).topk(count, dim=-1).indices
    themselves = torch.arange(len(of_old), device=of_old.device).unsqueeze(1).expand(-1, count - of_old.shape[1])
    model.rivals = torch.cat((torch.cat((of_old, themselves), dim=1), of_added))


def _renumbered(rivals: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """Numbers of Gaussians that were brought into an order."""
    numbers = torch.full((max(order) + 1,), -1, device=rivals.device)
    numbers[list(order)] = torch.arange(len(order), device=rivals.device)
    return numbers[rivals]


def _num_removed(model: HgadModel) -> int:
    return len(model.level_priors[0].class_centers) - model.num_classes
