# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Why the defaults of Hgad are what they are, found without a test image.

A fifth of each class's normal training images is held out. They, and the same images with synthetic anomalies of two
kinds, take the place of a test: AUROC of both, class by class. The figures on the test images stand beside them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

from anomalib_hgad import Hgad
from anomalib_hgad.common.files import write_json
from anomalib_hgad.data.pasted_patches import PastedPatches
from anomalib_hgad.data.synthetic_anomalies import SyntheticAnomalies
from anomalib_hgad.models.hgad import gaussians, prior
from anomalib_hgad.models.hgad.torch_model import HgadModel
from tests.benchmarks.image_sets import BATCH, Images, aurocs, encode, split_data
from tests.benchmarks.markdown import markdown
from tests.benchmarks.results_model import data_parser

COPIES = 3
"""Anomalies of each kind for every normal image."""

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "likelihood_alone": {"score": "standardized"},
    "largest_pixel": {"score_share": 0.0},
    "share_1_percent": {"score_share": 0.01},
    "share_5_percent": {"score_share": 0.05},
    "ridge_0.01": {"ridge": 0.01},
    "ridge_0.1": {"ridge": 0.1},
    "no_neighborhood": {"neighborhood": 1},
    "neighborhood_5": {"neighborhood": 5},
    "layer_3": {"levels": {"layer3": [1.0]}},
    "layer_3_two_scales": {"levels": {"layer2": [1.0], "layer3": [1.0, 0.5]}},
    "layers_1_2_3": {"levels": {"layer1": [1.0], "layer2": [1.0], "layer3": [1.0]}},
}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All settings: AUROC on synthetic anomalies of both kinds and on the test images, by class."""
    size = (arguments.image_size, arguments.image_size)
    datamodule, held_out, normalise = split_data(arguments.data, size)
    rows = list(range(len(held_out)))
    parts = {
        "train": datamodule.train_data,
        "perlin": SyntheticAnomalies(held_out, rows, COPIES),
        "patches": PastedPatches(held_out, rows, COPIES),
        "test": datamodule.test_data,
    }
    encoded: dict[str, Images] = {}
    encoded_by: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for name in arguments.settings:
        settings = SETTINGS[name]
        model = new_model(arguments, settings, len(datamodule.class_names))
        features_by = {key: settings.get(key) for key in ("levels", "neighborhood")}
        if features_by != encoded_by:
            encoded = {part: encode(model, items, normalise) for part, items in parts.items()}
            encoded_by = features_by
        fit(model, encoded["train"], settings.get("ridge", gaussians.RIDGE))
        normal = first_images(encoded["perlin"], len(rows))
        results[name] = {"settings": settings}
        for part in ("perlin", "patches", "test"):
            judged = normal.and_those_of(encoded[part]) if part == "patches" else encoded[part]
            of_classes = aurocs(model, normal, judged, size)
            results[name][part] = dict(zip(datamodule.class_names, of_classes, strict=True))
        print(table(results), flush=True)
        if arguments.json:
            write_json(results, arguments.json)
    return results


def new_model(arguments: argparse.Namespace, settings: dict[str, Any], num_classes: int) -> HgadModel:
    """A model that is to be fitted."""
    changes = {key: value for key, value in settings.items() if key != "ridge"}
    module = Hgad(
        backbone_weights=arguments.weights, image_size=arguments.image_size, num_classes=num_classes, **changes
    )
    return module.model.eval()


@torch.no_grad()
def fit(model: HgadModel, images: Images, ridge: float) -> None:
    """Fit the model in closed form."""
    model.start_moments()
    for rows in torch.arange(len(images.class_index)).split(BATCH):
        model.add_moments(*images.batch(rows))
    with patch.object(prior, "inverse_cholesky", partial(prior.inverse_cholesky, ridge=ridge)):
        model.fit()


def first_images(images: Images, count: int) -> Images:
    """The first ones."""
    rows = torch.arange(count)
    return Images(*images.batch(rows), images.anomalous[:count], images.masks[:count])


def table(results: dict[str, Any]) -> str:
    """Markdown: image / pixel AUROC, means over the classes."""
    rows = []
    for name, result in results.items():
        of_parts = [means(result[part]) for part in ("perlin", "patches", "test")]
        of_parts.insert(2, tuple(np.mean(of_parts[:2], axis=0)))
        rows.append([name, *(f"{image:.1f} / {pixel:.1f}" for image, pixel in of_parts)])
    return markdown(["setting", "Perlin noise", "pasted patches", "mean of both", "test images"], rows)


def means(of_classes: dict[str, tuple[float, float | None]]) -> tuple[float, float]:
    """Means of image and pixel AUROC over the classes."""
    images, pixels = zip(*of_classes.values(), strict=True)
    return statistics.mean(images), statistics.mean(pixel for pixel in pixels if pixel is not None)


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = data_parser(__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    run(parser.parse_args(command))


if __name__ == "__main__":
    main()
