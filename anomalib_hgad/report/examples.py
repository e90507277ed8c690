# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images with the largest errors of a run: image, mask, map and decision."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from anomalib.data.utils import read_image
from anomalib.visualization.image.functional import overlay_image, visualize_anomaly_map
from PIL import Image, ImageChops, ImageFilter

from anomalib_hgad.data.folders import common_folder
from anomalib_hgad.data.masks import read_masks, split_masks
from anomalib_hgad.evaluation.predictions import Prediction
from anomalib_hgad.report.figures import score
from anomalib_hgad.report.run_files import RunFiles

MOST_EXAMPLES = 6
"""Images shown of each kind of error."""

OF_CLASS = 3
"""Maximum number of these from one class: a hard class hides no other."""

PICTURE_SIDE = 256
"""Pixels of the longer side of a picture."""


@dataclass(frozen=True)
class Example:
    """An image on the page.

    Attributes:
        row: Its decision.
        name: Its file, without the folders that are common to all.
        score: The score by which it was chosen.
        wrong: Whether the decision was wrong; ``None`` if there was no threshold.
        of_known_class: Whether it is of a class of the test, and should not be called unknown.
        image: Picture of it, as a data address.
        mask: Picture of its mask on it; ``None`` if there is none.
        map: Picture of its anomaly map on it.
    """

    row: Prediction
    name: str
    score: float
    wrong: bool | None
    of_known_class: bool
    image: str
    mask: str | None
    map: str


def worst(predictions: Sequence[Prediction], anomalous: bool) -> list[Prediction]:
    """Anomalous images with the lowest scores, or normal ones with the highest.

    Args:
        predictions: Decisions of a test.
        anomalous: Which of both.

    Returns:
        At most :data:`MOST_EXAMPLES`, and :data:`OF_CLASS` of a class, worst first.
    """
    of_kind = sorted((row for row in predictions if row.gt_label == anomalous), key=score, reverse=not anomalous)
    of_class: Counter[str | None] = Counter()
    chosen = []
    for row in of_kind:
        of_class[row.class_name] += 1
        if of_class[row.class_name] <= OF_CLASS:
            chosen.append(row)
    return chosen[:MOST_EXAMPLES]


@torch.no_grad()
def example(run: RunFiles, row: Prediction) -> Example:
    """Predict an image again, and draw it.

    Args:
        run: The run.
        row: The decision on the image.

    Returns:
        What the page shows of it.
    """
    tensor = read_image(row.image_path, as_tensor=True)
    anomaly_map = run.model(tensor.unsqueeze(0)).anomaly_map.squeeze()
    image = Image.open(row.image_path).convert("RGB")
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    # Post-processed maps are between 0 and 1 with the threshold at 0.5: a colour means the same in all pictures.
    has_scale = run.threshold is not None
    heat = visualize_anomaly_map(anomaly_map, colormap=True, normalize=not has_scale).convert("RGB")
    return Example(
        row=row,
        name=file_name(run, row),
        score=score(row),
        wrong=None if row.pred_label is None else row.pred_label != row.gt_label,
        of_known_class=row.class_name in {None, *run.class_names},
        image=data_address(image),
        mask=data_address(outlined(image, split_masks(row.mask_path))) if row.mask_path else None,
        map=data_address(overlay_image(image, heat.resize(image.size), alpha=0.5)),
    )


def file_name(run: RunFiles, row: Prediction) -> str:
    """File of an image, without the folders that are common to all of the run."""
    root = common_folder([Path(other.image_path) for other in run.predictions])
    return Path(row.image_path).absolute().relative_to(root).as_posix()


def outlined(image: Image.Image, mask_files: Sequence[Path]) -> Image.Image:
    """Image with the edge of its masks drawn in red."""
    mask = Image.fromarray(np.uint8(255) * read_masks(mask_files)).resize(image.size)
    edge = ImageChops.difference(mask.filter(ImageFilter.MaxFilter(3)), mask.filter(ImageFilter.MinFilter(3)))
    result = image.copy()
    result.paste((230, 30, 50), mask=edge)
    return result


def data_address(image: Image.Image) -> str:
    """A picture that stands in the page itself."""
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
