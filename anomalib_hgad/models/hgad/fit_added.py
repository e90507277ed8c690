# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Fits a class to a few normal images, in addition to an unchanged model.

The Gaussian is fitted to all images of the class. For the scores of unseen images, each part of them is scored by a
Gaussian of the others: with ten images there are none to hold out (cross-conformal prediction, Vovk 2015). Estimates
that a few images leave uncertain are shrunk towards the other classes.

Dimensions: B images, K classes that the model has, A added ones.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer

from anomalib_hgad.evaluation.threshold import class_thresholds
from anomalib_hgad.models.hgad.added_classes import ClassGaussians, append_classes
from anomalib_hgad.models.hgad.anomaly_map import LevelScores
from anomalib_hgad.models.hgad.calibration import LEAST_CLASS, ODD_DEVIATIONS, ScoreCalibration
from anomalib_hgad.models.hgad.confusion import PARTS, Confusion
from anomalib_hgad.models.hgad.moments import Gaussians, sum_up
from anomalib_hgad.models.hgad.normal_pass import inference, normal_images, patched_batches
from anomalib_hgad.models.hgad.normal_scores import ClassValues, ImageScores, PositionScores, typicality
from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.models.hgad.pixel_limits import LIMIT_IMAGES, PATCHES_OF_IMAGE, PatchPixels
from anomalib_hgad.models.hgad.torch_model import HgadModel, LevelReading

SHARED_IMAGES = 1.0
"""Weight, in images, of the covariance common to the other classes against a class's own."""


@dataclass(frozen=True)
class AddedClass:
    """Summary of an added class.

    Attributes:
        name: Its name.
        images: Number of its normal images.
        typicality: Mean typicality of its images, each scored by a fit without it, in nats per dimension.
        taken_for: Number of its images that a fit without them would assign to another class, by class.
    """

    name: str
    images: int
    typicality: float
    taken_for: dict[str, int]


class FitAdded(Callback):
    """Fits added classes instead of training the model.

    Args:
        names: Names of all classes of the model, the added ones last.
        num_added: A.

    Attributes:
        added: Summary of each added class; empty before the fit.
    """

    def __init__(self, names: Sequence[str], num_added: int) -> None:
        self.names = list(names)
        self.num_added = num_added
        self.added: list[AddedClass] = []

    def on_train_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Fit the added classes, and end the training before its first step."""
        with inference(trainer, pl_module.model):
            self.added = fit_added(trainer, pl_module, self.names, self.num_added)
        trainer.should_stop = True


def fit_added(trainer: Trainer, module: AnomalibModule, names: Sequence[str], num_added: int) -> list[AddedClass]:
    """Add classes to a model, which does not change if this fails.

    Args:
        trainer: Trainer whose data is normal images of the classes.
        module: The model, in evaluation mode.
        names: Names of all classes, the added ones last.
        num_added: A.

    Returns:
        A summary of each added class.

    Raises:
        ValueError: If images show a product that the model knows.
    """
    model: HgadModel = module.model
    images = _Images(trainer, module, names, num_added)
    of_classes, of_others = _gaussians(model, images)
    calibration, novelty = _constants(model, num_added)
    with_parts = deepcopy(model)
    append_classes(with_parts, of_classes, calibration, novelty)
    first = with_parts.num_classes
    rivals = with_parts.class_rivals[-num_added:]
    themselves = torch.arange(first - num_added, first, device=rivals.device).unsqueeze(1)
    rivals = rivals.masked_fill(rivals == themselves, -1).repeat_interleave(PARTS, dim=0)
    append_classes(with_parts, of_others, *_constants(model, num_added * PARTS), rivals)

    confusion = Confusion(model, with_parts, first, names, num_added)
    typicalities, of_all = ImageScores(num_added), ClassValues(num_added, module.device)
    for readings, part, paths in images.readings(with_parts):
        values = typicality(with_parts.level_scores(readings, first + part))
        typicalities.add(values, part // PARTS)
        of_all.add(values.unsqueeze(-1), part // PARTS)
        confusion.add(readings, part, paths)
    confusion.check()
    typical = float(model.novelty.deviation.square().mean().sqrt())
    odd = torch.tensor([odd_below(of_class, typical) for of_class in typicalities.of_classes()])
    positions = _position_scores(with_parts, images, first, odd)
    calibration.set_positions(positions, positions)
    novelty.update(of_all, model.novelty)
    if module.calibration_share is not None:
        with_parts.calibration.set_positions_of(first, calibration, PARTS)
        scores, pixels = ImageScores(num_added), ClassValues(num_added, module.device)
        for readings, part, _ in images.readings(with_parts):
            levels = with_parts.level_scores(readings, first + part)
            of_images, maps = with_parts.raw_scores(levels, first + part, model.image_size)
            scores.add(of_images, part // PARTS)
            pixels.add(maps, part // PARTS)
        limits = images.pixel_limits(with_parts, first)
        calibration.set_scale(scores.of_classes(), pixels, limits, model.calibration)
        _set_thresholds(module, calibration, scores.of_classes())
    append_classes(model, of_classes, calibration, novelty)
    of_each = names[-num_added:], images.counts, of_all.means.tolist(), confusion.taken_for
    return [AddedClass(*values) for values in zip(*of_each, strict=True)]


def odd_below(typicalities: torch.Tensor, of_others: float) -> float:
    """Compute the typicality below which an image of a class is an outlier, which would stretch all positions' scale.

    Args:
        typicalities: Typicalities of the images of the class, shape (images,).
        of_others: Standard deviation for other classes; that of a few images may be smaller by chance.

    Returns:
        :data:`~anomalib_hgad.models.hgad.calibration.ODD_DEVIATIONS` typical deviations below the median. The typical
        deviation is 1.48 times the median absolute deviation, and at least ``of_others``. -inf for too few images.
    """
    if len(typicalities) < LEAST_CLASS:
        return -math.inf
    middle = typicalities.quantile(0.5)
    deviation = max(1.48 * float((typicalities - middle).abs().quantile(0.5)), of_others)
    return float(middle) - ODD_DEVIATIONS * deviation


def _position_scores(model: HgadModel, images: _Images, first: int, odd: torch.Tensor) -> PositionScores:
    """Compute the moments of the positions of images that are not outliers.

    Args:
        model: A model in which class ``first + part`` is a Gaussian without this part.
        images: The images.
        first: The first of these classes.
        odd: Typicality below which an image is an outlier, for each class, shape (A,).
    """
    num_added, device = len(images.counts), model.calibration.location.device
    positions = PositionScores(num_added, len(model.flows), device)
    for readings, part, _ in images.readings(model):
        levels, classes = model.level_scores(readings, first + part), part // PARTS
        rows = typicality(levels).double() >= odd.to(device)[classes]
        if rows.any():
            usual = [
                LevelScores(level.log_likelihood[rows], level.contrast[rows], level.negative_entropy[rows], level.grid)
                for level in levels
            ]
            positions.add(usual, classes[rows])
    return positions


def _set_thresholds(module: AnomalibModule, calibration: ScoreCalibration, scores: Sequence[torch.Tensor]) -> None:
    """Set thresholds of the added classes, if the other classes have their own.

    Args:
        module: The model.
        calibration: Score constants of the added classes, with their scales.
        scores: Scores of their images before any scale.
    """
    old, new = module.model.calibration.class_thresholds, calibration.class_thresholds
    if not old.rate.any():
        return
    rate = max(old.rates)
    new.rate.fill_(rate)
    if old.shift.any():
        common = module.post_processor.image_threshold.cpu()
        constants = zip(scores, calibration.location.cpu(), calibration.spread.cpu(), strict=True)
        on_scale = [(of_class.float() - location) / spread for of_class, location, spread in constants]
        images = torch.tensor([len(of_class) for of_class in scores])
        device = new.shift.device
        new.update(class_thresholds(on_scale, common, rate).to(device), common.to(device), images.to(device), rate)


def _constants(model: HgadModel, num_classes: int) -> tuple[ScoreCalibration, NoveltyScale]:
    """Return neutral score constants for some classes."""
    device = model.calibration.location.device
    return ScoreCalibration(num_classes, len(model.flows)).to(device), NoveltyScale(num_classes).to(device)


class _Images:
    """The images of the added classes in a fixed order, each in one of the parts of its class.

    The parts of all classes are numbered: class (from 0 to A - 1) times :data:`PARTS`, plus the part within it.
    """

    def __init__(self, trainer: Trainer, module: AnomalibModule, names: Sequence[str], num_added: int) -> None:
        self._trainer = trainer
        self._module = module
        samples = module.training_data.images.samples
        self._paths = samples["image_path"].astype(str).to_list()
        first = len(names) - num_added
        classes = [names.index(name) - first for name in samples.get("class_name", [names[-1]] * len(samples))]
        self.counts = [classes.count(index) for index in range(num_added)]
        self.parts = parts_of_images(classes, self.counts)

    def readings(self, model: HgadModel) -> Iterator[tuple[list[LevelReading], torch.Tensor, list[str]]]:
        """Yield the readings of the images, batch by batch, with their parts and files."""
        row = 0
        for batch in normal_images(self._trainer, self._module, "Reading the new products"):
            rows = slice(row, row + batch.batch_size)
            row += batch.batch_size
            parts = torch.tensor(self.parts[rows], device=self._module.device)
            yield model.read(self._module.features(batch)), parts, self._paths[rows]

    def pixel_limits(self, model: HgadModel, first: int) -> torch.Tensor:
        """Compute the pixel limits of the classes before any scale, shape (A,); NaN for a class without one.

        Args:
            model: A model in which class ``first + part`` is a Gaussian without this part.
            first: The first of these classes.
        """
        kept = self._module.training_data.patched
        of_class: dict[int, int] = defaultdict(int)
        of_patched = []
        for image_part in self.parts:
            of_class[image_part // PARTS] += 1
            of_patched += [image_part] * (PATCHES_OF_IMAGE if of_class[image_part // PARTS] <= LIMIT_IMAGES else 0)
        pixels, row = PatchPixels(len(self.counts)), 0
        for features, masks, _ in patched_batches(self._trainer, self._module) if kept is None else kept:
            part = torch.tensor(of_patched[row : row + len(masks)], device=self._module.device)
            row += len(masks)
            readings = model.read([level.to(self._module.device) for level in features])
            _, maps = model.raw_scores(model.level_scores(readings, first + part), first + part, masks.shape[-2:])
            pixels.add(maps, masks, part // PARTS)
        return torch.tensor(pixels.limits(), device=self._module.device)


def parts_of_images(classes: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Distribute the images of each class over its parts in turn.

    Args:
        classes: Class of each image.
        counts: Number of images of each class; a class with fewer images than :data:`PARTS` has as many parts.

    Returns:
        Part of each image, with the parts of all classes numbered one after another.
    """
    seen = [0] * len(counts)
    parts = []
    for index in classes:
        parts.append(index * PARTS + seen[index] % min(PARTS, counts[index]))
        seen[index] += 1
    return parts


def _gaussians(model: HgadModel, images: _Images) -> tuple[list[ClassGaussians], list[ClassGaussians]]:
    """Fit Gaussians of the classes on every level, and of each class without each part, unless it is the only one."""
    batches = (([reading.latents.z for reading in readings], parts) for readings, parts, _ in images.readings(model))
    num_parts, device = PARTS * len(images.counts), model.calibration.location.device
    dims = [flow.dim for flow in model.feature_flows]
    of_classes, of_others = [], []
    for prior, level in zip(model.priors, sum_up(batches, num_parts, dims, device), strict=True):
        shared = torch.linalg.inv(cast("torch.Tensor", prior.shared_whitening).double())
        totals, others = [], []
        for index in range(len(images.counts)):
            parts = range(index * PARTS, (index + 1) * PARTS)
            total = level.of_classes(parts)
            totals.append(_drawn(total, images.parts, parts, shared @ shared.mT))
            for part in parts:
                rest = level.of_classes([other for other in parts if other != part])
                kept = [other for other in parts if other != part or not rest.counts.sum()]
                others.append(_drawn(level.of_classes(kept), images.parts, kept, shared @ shared.mT))
        of_classes.append(ClassGaussians(*(torch.stack(values) for values in zip(*totals, strict=True))))
        of_others.append(ClassGaussians(*(torch.stack(values) for values in zip(*others, strict=True))))
    return of_classes, of_others


def _drawn(
    level: Gaussians, parts: Sequence[int], taken: Sequence[int], shared: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute mean and covariance of some parts, the latter shrunk towards the one common to the other classes.

    Args:
        level: Moments of the parts.
        parts: Part of every image.
        taken: The parts to use.
        shared: The common covariance, shape (D, D).
    """
    mean, covariance = level.pooled()
    images = sum(part in taken for part in parts)
    return mean, (images * covariance + SHARED_IMAGES * shared) / (images + SHARED_IMAGES)
