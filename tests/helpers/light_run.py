# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A light model of two products: trained, with its checkpoint and its exports, which take most of the time."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from PIL import Image

from anomalib_hgad import Hgad, MultiClass
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.exports import to_openvino
from tests.helpers.light import LIGHT

CLASSES = ["bolt", "nut"]
SETTINGS: dict[str, Any] = LIGHT | {"image_size": (32, 48), "calibration_share": 0.3, "seed": 0, "visualizer": False}

CHECKPOINT = "model.ckpt"
EXPORTS = {
    ".onnx": "weights/onnx/model.onnx",
    ".xml": "weights/openvino/model.xml",
    ".pt": "weights/torch/model.pt",
    ".pt2": "weights/torch_export/model.pt2",
}
KINDS = list(product(["known", "unknown"], ["good", "bad"]))


class Run(NamedTuple):
    """A trained model, its checkpoint, its images, and its exports by their endings."""

    model: AnomalibModule
    checkpoint: Path
    data: Path
    exports: dict[str, Path]


class LightRun(NamedTuple):
    """A run, and an image each of :data:`KINDS`: of a known product or an unknown one, labelled good or bad."""

    run: Run
    images: dict[tuple[str, str], Path]

    @property
    def model(self) -> Hgad:
        """Ready to predict."""
        assert isinstance(self.run.model, Hgad)
        return self.run.model


def trained(model: AnomalibModule, folder: Path) -> Engine:
    """Train for an epoch on the images of a folder's ``data``."""
    run = engine(folder / "results")
    data = MultiClass(root=folder / "data", num_workers=0, val_split_mode="same_as_test")
    run.fit(model, datamodule=data)
    return run


def varied(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Noise of any strength around any colour: of such images, some of one colour are taken for normal too."""
    strength, (width, height) = rng.uniform(), size
    pixels = (1 - strength) * rng.uniform(0, 255, 3) + strength * rng.uniform(0, 255, (height, width, 3))
    return pixels.astype(np.uint8)


def write(folder: Path) -> None:
    """Draw images larger than what the model takes, train, and export."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        trees.mvtec_class(folder / "data" / name, size=(96, 80), train=6)
        for path in sorted((folder / "data" / name).glob("t*/*/*.png")):
            pixels = varied(rng, (96, 80))
            if path.parent.name == "crack":
                pixels[4:28, 4:28] = 255
            Image.fromarray(pixels).save(path)
    model = Hgad(**SETTINGS)
    run = trained(model, folder)
    draw_images(model.eval(), folder)
    run.trainer.save_checkpoint(folder / CHECKPOINT)
    graph = model.to_onnx(folder)
    made = [graph, to_openvino(model, graph, folder), model.to_torch(folder), model.to_torch_export(folder)]
    assert made == [folder / place for place in EXPORTS.values()]


@torch.no_grad()
def draw_images(model: Hgad, folder: Path) -> None:
    """Draw an image of each of :data:`KINDS`, and set the constants of the model that make them what they are called.

    The threshold is the score of a test image, as anomalib's is, and no score is cut off.
    """
    rng = np.random.default_rng(1)
    images = [varied(rng, (50, 40)) for _ in range(24)]
    noise = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    tested = [np.array(Image.open(path)) for path in sorted((folder / "data").glob("*/test/*/*.png"))]
    found = []
    for image in [*images, noise, *tested]:
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        found.append(model.model.predict(model.pre_processor.transform(tensor))[0])
    novelties, scores = (
        torch.cat([getattr(prediction, name).flatten() for prediction in found]) for name in ("novelty", "pred_score")
    )
    limit = novelties[: len(images)].quantile(0.5)
    scores_of_test = scores[-len(tested) :]
    threshold = scores_of_test[(scores_of_test - scores[: len(images)].quantile(0.5)).abs().argmin()]
    (folder / "images").mkdir()
    for known, label in KINDS:
        of_kind = ((novelties > limit) == (known == "unknown")) & ((scores > threshold) == (label == "bad"))
        Image.fromarray(images[int(of_kind[: len(images)].nonzero()[0])]).save(folder / f"images/{known}_{label}.png")
    model.model.novelty.margin.mul_(limit)
    pixels = torch.stack([prediction.anomaly_map.flatten() for prediction in found])
    for kind, values, middle in (("image", scores, threshold), ("pixel", pixels, pixels[len(images)].median())):
        width = 1.1 * (values - middle).abs().max()
        setattr(model.post_processor, f"_{kind}_threshold", middle)
        setattr(model.post_processor, f"{kind}_min", middle - width)
        setattr(model.post_processor, f"{kind}_max", middle + width)


def read(folder: Path) -> LightRun:
    """What :func:`write` wrote."""
    model = Hgad.load_from_checkpoint(folder / CHECKPOINT, **SETTINGS).eval()
    exports = {ending: folder / place for ending, place in EXPORTS.items()}
    images = {kind: folder / "images" / f"{'_'.join(kind)}.png" for kind in KINDS}
    return LightRun(Run(model, folder / CHECKPOINT, folder / "data", exports), images)
