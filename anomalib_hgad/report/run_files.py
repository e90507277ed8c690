# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Files of a training of Hgad and its test in the folder of a run."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anomalib_hgad.data.masks import split_masks
from anomalib_hgad.evaluation.identity import identity
from anomalib_hgad.evaluation.post_processing import labelled_above
from anomalib_hgad.evaluation.predictions import PREDICTIONS_FILE, Prediction, read_predictions
from anomalib_hgad.evaluation.results import read_results
from anomalib_hgad.models.checkpoint import VERSIONS_KEY
from anomalib_hgad.models.hgad.lightning_model import Hgad
from anomalib_hgad.report.figures import score

logger = logging.getLogger(__name__)

CHECKPOINT = Path("weights") / "lightning" / "model.ckpt"


@dataclass(frozen=True)
class RunFiles:
    """A run that was tested.

    Attributes:
        folder: Its folder.
        model: The trained model, ready to predict.
        predictions: The decision on every test image.
        results: Metrics of the classes, their mean, and the metrics of all images pooled.
        versions: Versions of the packages that the run was made with.
        tested_another: Whether the test was of another model than the run's checkpoint.
    """

    folder: Path
    model: Hgad
    predictions: list[Prediction]
    results: dict[str, Any]
    versions: dict[str, str]
    tested_another: bool = False

    @property
    def class_names(self) -> list[str]:
        """Classes of the tested images."""
        return list(self.results["classes"])

    @property
    def threshold(self) -> float | None:
        """Raw image score above which images are labelled anomalous; ``None`` if the run has none."""
        threshold = labelled_above(self.model.post_processor)
        return None if math.isnan(threshold) else threshold

    def of_class(self, name: str) -> list[Prediction]:
        """Decisions on the images of a class."""
        return [prediction for prediction in self.predictions if prediction.class_name in {name, None}]

    @property
    def groups(self) -> dict[str, list[Prediction]]:
        """Decisions on the images of each class, and on all images: some anomalies may be of none of the classes."""
        groups = {name: self.of_class(name) for name in self.class_names}
        return groups if len(groups) == 1 else groups | {"all images": self.predictions}


def read_run(folder: Path) -> RunFiles:
    """Read a run, and warn if its test was of another checkpoint: anomalib puts every test into the latest run.

    Args:
        folder: Folder that ``anomalib train`` or ``Engine.train`` has made, with ``predictions.csv`` in it.

    Returns:
        The run.

    Raises:
        FileNotFoundError: If a file of it, or a tested image or its mask, is missing.
        ValueError: If a file of it is invalid, if it is not of Hgad, if its files are of different tests, or if
            its test had no image files, scores or ground truth.
    """
    predictions = read_predictions(folder)
    checkpoint = folder / CHECKPOINT
    results = folder / "results.json"
    for path in (checkpoint, results):
        if not path.is_file():
            msg = f"{path} is missing. Expected the folder of a run that was trained and tested."
            raise FileNotFoundError(msg)
    _check_images(folder, predictions)
    figures = read_results(results)
    _check_classes(results, list(figures["classes"]), predictions)
    model = Hgad.load_from_checkpoint(checkpoint, map_location="cpu")
    # A test of an earlier version of this package does not record it.
    tested_another = figures.get("model") not in {None, identity(model.state_dict())}
    if tested_another:
        logger.warning(
            "%s: the last test in this folder used another model than %s. Its decisions and metrics do not belong to "
            "the thresholds and latents. Test this checkpoint, and make the report again.",
            folder,
            checkpoint,
        )
    return RunFiles(
        folder=folder,
        model=model.eval(),
        predictions=predictions,
        results=figures,
        versions=torch.load(checkpoint, map_location="cpu", weights_only=True)[VERSIONS_KEY],
        tested_another=tested_another,
    )


def _check_images(folder: Path, predictions: Sequence[Prediction]) -> None:
    """Check that there are scores, ground truth and files of the tested images."""
    if not predictions or any(prediction.gt_label is None for prediction in predictions):
        msg = f"{folder}: there are no tested images, or they have no ground truth. A report needs both."
        raise ValueError(msg)
    if unscored := [row.image_path for row in predictions if not math.isfinite(score(row))]:
        msg = f"{folder}: {len(unscored)} of {len(predictions)} tested images have no finite score, such as "
        msg += f"{unscored[0]}. Test the model again."
        raise ValueError(msg)
    images = [Path(row.image_path) for row in predictions]
    masks = [file for row in predictions if row.mask_path for file in split_masks(row.mask_path)]
    for of_what, files in (("tested images", images), ("masks", masks)):
        if gone := [file for file in files if not file.is_file()]:
            msg = f"{len(gone)} of {len(files)} {of_what} do not exist, such as {gone[0]}. Paths are relative to the "
            msg += "working directory of the test: start the report there."
            raise FileNotFoundError(msg)


def _check_classes(results: Path, classes: Sequence[str], predictions: Sequence[Prediction]) -> None:
    """Check that metrics are of some class of the tested images: the folder may be copied together."""
    tested = {row.class_name for row in predictions}
    if not classes or not tested & {*classes, None}:
        msg = (
            f"{results} has the classes {', '.join(classes) or 'none'}, but {PREDICTIONS_FILE} beside it has images of "
        )
        msg += (
            f"{', '.join(sorted(name or 'no class' for name in tested))}: they are of different tests. Test the model "
        )
        msg += "again."
        raise ValueError(msg)
