# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Differences between an export and its checkpoint, for one image and for all images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from anomalib_hgad.report.parity.exports import Export
from anomalib_hgad.report.parity.outputs import Outputs


@dataclass(frozen=True)
class Tolerances:
    """Largest accepted differences.

    Attributes:
        score, map: Difference of scores and of pixels of maps, absolute up to 1 and relative above.
        mask: Fraction of the pixels of an image that are marked in only one of both.
        label: Fraction of the images whose label or class differs.
    """

    score: float
    map: float
    mask: float
    label: float


@dataclass(frozen=True)
class ImageDifference:
    """Outputs of an export for an image compared with the checkpoint's; ``None`` where there is nothing to compare.

    Attributes:
        image: File of the image.
        score, map: Differences of the score, and the largest of a pixel of the map, as :class:`Tolerances` counts.
        mask: Fraction of the pixels that are marked in only one of both.
        label, class_name: Whether label and class are the same.
        borderline: Whether both scores are within the score tolerance of the threshold: such a label depends on the
            last bits of a score. anomalib's threshold is often the score of a test image itself.
        expected: Outputs of the checkpoint.
        found: Outputs of the export.
    """

    image: Path
    score: float | None
    map: float | None
    mask: float | None
    label: bool | None
    class_name: bool | None
    borderline: bool
    expected: Outputs
    found: Outputs


@dataclass(frozen=True)
class Parity:
    """How much an export and its checkpoint differ; ``None`` where there is nothing to compare.

    Attributes:
        file: The export.
        runtime: Runtime that has computed it.
        form: Precision of its weights.
        images: Number of images.
        largest_score_difference, median_score_difference: Of the images' scores, as :class:`Tolerances` counts.
        same_label, same_class, same_mask: Fractions of the images.
        largest_mask_difference: Largest fraction of the pixels of an image that are marked in only one of both.
        largest_map_difference: Largest difference of a pixel.
        worst_image: Image with the largest score difference.
    """

    file: str
    runtime: str
    form: str
    images: int
    largest_score_difference: float | None
    median_score_difference: float | None
    same_label: float | None
    same_class: float | None
    same_mask: float | None
    largest_mask_difference: float | None
    largest_map_difference: float | None
    worst_image: str


def compare(
    image: Path, expected: Outputs, found: Outputs, threshold: float | None, tolerances: Tolerances
) -> ImageDifference:
    """Compare the outputs for an image.

    Args:
        image: Its file.
        expected: Outputs of the checkpoint.
        found: Outputs of the export. One that is missing counts as the largest possible difference, except for a
            class, which not every format has.
        threshold: Threshold of the scores, if there is one.
        tolerances: Largest accepted differences.

    Returns:
        The differences.
    """
    same_class = None
    if expected.class_name is not None and found.class_name is not None:
        same_class = expected.class_name == found.class_name
    scores = (expected.pred_score, found.pred_score)
    return ImageDifference(
        image,
        _difference(expected.pred_score, found.pred_score),
        _difference(expected.anomaly_map, found.anomaly_map),
        _share(expected.pred_mask, found.pred_mask),
        None if expected.pred_label is None else expected.pred_label == found.pred_label,
        same_class,
        threshold is not None
        and all(score is not None and abs(score - threshold) <= tolerances.score for score in scores),
        # Maps of all images together would not fit into memory.
        _without_maps(expected),
        _without_maps(found),
    )


def summarise(export: Export, differences: Sequence[ImageDifference]) -> Parity:
    """Summarise the differences of an export.

    Args:
        export: The export.
        differences: Differences of all images.

    Returns:
        The summary.
    """
    scores = [difference.score for difference in differences if difference.score is not None]
    masks = [difference.mask for difference in differences if difference.mask is not None]
    return Parity(
        str(export.path),
        export.runtime,
        export.form,
        len(differences),
        max(scores, default=None),
        median(scores) if scores else None,
        _mean([difference.label for difference in differences]),
        _mean([difference.class_name for difference in differences]),
        _mean([mask == 0 for mask in masks]),
        max(masks, default=None),
        max((difference.map for difference in differences if difference.map is not None), default=None),
        str(_worst(differences, lambda difference: difference.score).image),
    )


def failures(parity: Parity, differences: Sequence[ImageDifference], tolerances: Tolerances) -> list[str]:
    """Describe the differences beyond the tolerances.

    Args:
        parity: Summary of an export.
        differences: Differences of all its images.
        tolerances: Largest accepted differences.

    Returns:
        Sentences that name the export, the metric and the image.
    """
    found = [
        _score_failure(parity, differences, tolerances.score),
        _other_failure(
            "pred_label",
            differences,
            tolerances.label,
            lambda one: True if one.borderline else one.label,
            lambda one: one.pred_label,
        ),
        _other_failure("class", differences, tolerances.label, lambda one: one.class_name, lambda one: one.class_name),
        _pixel_failure("anomaly_map", "map", differences, tolerances.map, lambda one: one.map),
        _pixel_failure("pred_mask", "mask", differences, tolerances.mask, lambda one: one.mask),
    ]
    return [f"{parity.file} ({parity.runtime}, {parity.form}): {sentence}" for sentence in found if sentence]


def _score_failure(parity: Parity, differences: Sequence[ImageDifference], tolerance: float) -> str | None:
    worst = _worst(differences, lambda one: one.score)
    others = sum(_beyond(one.score, tolerance) for one in differences)
    if not others:
        return None
    said = (
        f"pred_score of {worst.image} is {_number(worst.found.pred_score)}, and "
        f"{_number(worst.expected.pred_score)} in the checkpoint: {worst.score:.2g} apart, where "
        f"score_tolerance={tolerance:g}; beyond it are {others} of {len(differences)} images."
    )
    if others == len(differences) > 1 and parity.form == "FP32":
        said += " All differ: the file may have been exported from another checkpoint."
    return said


def _other_failure(
    name: str,
    differences: Sequence[ImageDifference],
    tolerance: float,
    is_same: Callable[[ImageDifference], bool | None],
    value: Callable[[Outputs], object],
) -> str | None:
    others = [one for one in differences if is_same(one) is False]
    if len(others) <= tolerance * len(differences):
        return None
    worst = _worst(others, lambda one: one.score)
    return (
        f"{name} of {worst.image} is {value(worst.found)}, and {value(worst.expected)} in the checkpoint; it "
        f"differs for {len(others)} of {len(differences)} images, where label_tolerance={tolerance:g}."
    )


def _pixel_failure(
    name: str,
    figure: str,
    differences: Sequence[ImageDifference],
    tolerance: float,
    of: Callable[[ImageDifference], float | None],
) -> str | None:
    worst = _worst(differences, of)
    if not _beyond(of(worst), tolerance):
        return None
    unit = "a share of its pixels of " if figure == "mask" else ""
    return (
        f"{name} of {worst.image} differs from the checkpoint's by {unit}{of(worst):.2g}, where "
        f"{figure}_tolerance={tolerance:g}."
    )


def _difference(expected: float | np.ndarray | None, found: float | np.ndarray | None) -> float | None:
    if expected is None:
        return None
    if found is None or np.shape(found) != np.shape(expected):
        return math.inf
    there, here = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    with np.errstate(invalid="ignore"):  # of infinities
        apart = np.abs(here - there) / np.maximum(1, np.abs(there))
    apart = np.where(np.isnan(here) & np.isnan(there) | (here == there), 0, apart)
    return float(np.nan_to_num(apart, nan=math.inf, posinf=math.inf).max())


def _share(expected: np.ndarray | None, found: np.ndarray | None) -> float | None:
    if expected is None:
        return None
    if found is None or found.shape != expected.shape:
        return 1.0
    return float((expected != found).mean())


def _without_maps(outputs: Outputs) -> Outputs:
    return Outputs(outputs.pred_score, outputs.pred_label, None, None, outputs.class_name)


def _mean(values: Sequence[bool | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _worst(differences: Sequence[ImageDifference], of: Callable[[ImageDifference], float | None]) -> ImageDifference:
    return max(differences, key=lambda difference: of(difference) or 0.0)


def _beyond(value: float | None, tolerance: float) -> bool:
    return value is not None and value > tolerance


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.6g}"
