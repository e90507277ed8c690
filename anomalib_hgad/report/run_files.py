# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Files of a training of Hgad and its test in the folder of a run."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anomalib_hgad.evaluation.identity import identity
from anomalib_hgad.evaluation.post_processing import labelled_above
from anomalib_hgad.evaluation.predictions import Prediction, read_predictions
from anomalib_hgad.evaluation.results import read_results
from anomalib_hgad.models.checkpoint import VERSIONS_KEY
from anomalib_hgad.models.hgad.lightning_model import Hgad

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
        FileNotFoundError: If a file of it, or a tested image, is missing.
        ValueError: If a file of it is invalid, if it is not of Hgad, or if its test had no image files or ground truth.
    """
    predictions = read_predictions(folder)
    checkpoint = folder / CHECKPOINT
    results = folder / "results.json"
    for path in (checkpoint, results):
        if not path.is_file():
            msg = f"{path} is missing. Expected the folder of a run that was trained and tested."
            raise FileNotFoundError(msg)
    if not predictions or any(prediction.gt_label is None for prediction in predictions):
        msg = f"{folder}: there are no tested images, or they have no ground truth. A report needs both."
        raise ValueError(msg)
    if gone := [row.image_path for row in predictions if not Path(row.image_path).is_file()]:
        msg = f"{len(gone)} of {len(predictions)} tested images do not exist, such as {gone[0]}. Paths are relative to "
        msg += "the working directory of the test: start the report there."
        raise FileNotFoundError(msg)
    figures = read_results(results)
    model = Hgad.load_from_checkpoint(checkpoint, map_location="cpu")
    # A test of an earlier version of this package does not say.
    tested_another = figures.get("model") not in {None, identity(model.state_dict())}
    if tested_another:
        logger.warning(
            "%s: the last test in this folder was of another model than %s. Its decisions and metrics do not belong to "
            "the thresholds and latents. Test this checkpoint, and report again.",
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
