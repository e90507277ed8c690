# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Benchmarks of the default model, which is fitted in closed form."""

from __future__ import annotations

import os
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from anomalib_hgad import Hgad, MultiClass, cli
from anomalib_hgad.models.hgad.added_classes import ClassGaussians, append_classes
from anomalib_hgad.models.hgad.calibration import ScoreCalibration
from anomalib_hgad.models.hgad.folding import fold
from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.models.hgad.torch_model import HgadModel
from tests.benchmarks.measure import device, median_seconds
from tests.helpers.engines import engine
from tests.helpers.trees import mvtec_class

BATCH = 8
IMAGES_OF_CLASS = 40
SIZE = 256
CLASSES = (1, 5, 160)
KNOWN_PRODUCTS = 40
ADDED_IMAGES = 50
ADDED_CLASSES = 10


def closed_form() -> dict[str, Any]:
    """(g): a whole fit, against reading the images and one pass of the backbone; and many classes against one."""
    fits, medians_of_fits = whole_fit()
    classes, medians_of_classes = number_of_classes()
    added, medians_of_added = added_classes()
    return {
        "what": f"the default model, resnet18 layers 2 and 3, {SIZE} px, batch {BATCH}",
        "ratios": fits | classes | added,
        "medians": medians_of_fits | medians_of_classes | medians_of_added | added_product(),
    }


def whole_fit() -> tuple[dict[str, float], dict[str, float]]:
    """Images of HGAD_TEST_DATA, if it is there, else five classes of made ones of 1024 px."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(os.environ["HGAD_TEST_DATA"]) / "data" if "HGAD_TEST_DATA" in os.environ else Path(folder) / "data"
        if not root.exists():
            for name in ("bolt", "nut", "plate", "ring", "washer"):
                mvtec_class(root / name, train=IMAGES_OF_CLASS, size=(4 * SIZE, 4 * SIZE))
        seconds = median_seconds(fit=lambda: fit(root, Path(folder)), read_and_encode=lambda: read_and_encode(root))
        count = len(datamodule_of(root).train_data)
    ratios = {"fit / reading and one pass of the backbone": seconds["fit"] / seconds["read_and_encode"]}
    return ratios, {f"{name}, {count} images, s": value for name, value in seconds.items()}


def datamodule_of(root: Path) -> MultiClass:
    """The images, read by this process."""
    datamodule = MultiClass(root=root, train_batch_size=BATCH, num_workers=0)
    datamodule.setup()
    return datamodule


def fit(root: Path, folder: Path) -> None:
    """The training of the command line, all constants of the scores included, without validation."""
    run = engine(folder / "results", limit_val_batches=0, accelerator="auto", devices=1)
    run.fit(Hgad(pre_trained=False, image_size=SIZE), datamodule=datamodule_of(root))


@torch.no_grad()
def read_and_encode(root: Path) -> None:
    """What no fit can do without."""
    model = Hgad(pre_trained=False, image_size=SIZE).to(device())
    data = datamodule_of(root).train_data
    transform = model.pre_processor.transform
    for images in DataLoader(data, BATCH, collate_fn=lambda items: torch.stack([transform(i.image) for i in items])):
        model.model.encoder(images.to(device()))


def number_of_classes() -> tuple[dict[str, float], dict[str, float]]:
    """Inference, and what a fit does after its pass over the images, for numbers of classes."""
    most = CLASSES[-1]
    images = torch.randn(BATCH, 3, SIZE, SIZE, device=device())
    models = {count: fitted(count, most) for count in CLASSES}
    folded = {count: fold(model) for count, model in models.items()}
    with torch.no_grad():
        seconds = median_seconds(
            encoder=lambda: models[1].encoder(images),
            **{f"{count} classes": lambda model=model: model(images) for count, model in folded.items()},
        )
        ends = median_seconds(**{f"{count} classes": models[count].fit for count in CLASSES})
    return {
        f"inference, {most} classes / 1": seconds[f"{most} classes"] / seconds["1 classes"],
        f"inference, {most} classes / 5": seconds[f"{most} classes"] / seconds["5 classes"],
        "inference, 1 class / the backbone alone": seconds["1 classes"] / seconds["encoder"],
    }, {f"inference, {name}, ms per image": 1000 * value / BATCH for name, value in seconds.items()} | {
        f"fit after the pass, {name}, s": value for name, value in ends.items()
    }


def added_classes() -> tuple[dict[str, float], dict[str, float]]:
    """Inference of a model to which classes were added, against one whose classes were fitted together."""
    together = fitted(CLASSES[1], BATCH * CLASSES[1])
    with_added = deepcopy(together)
    gaussians = [
        ClassGaussians(torch.randn(ADDED_CLASSES, flow.dim), torch.eye(flow.dim).repeat(ADDED_CLASSES, 1, 1))
        for flow in together.feature_flows
    ]
    constants = ScoreCalibration(ADDED_CLASSES, len(together.flows)), NoveltyScale(ADDED_CLASSES)
    append_classes(with_added.cpu(), gaussians, *constants)
    images = torch.randn(BATCH, 3, SIZE, SIZE, device=device())
    models = {"none": fold(together), "some": fold(with_added.to(device()))}
    with torch.no_grad():
        seconds = median_seconds(**{name: lambda model=model: model(images) for name, model in models.items()})
    ratio = seconds["some"] / seconds["none"]
    return {f"inference, {CLASSES[1]} classes and {ADDED_CLASSES} added / {CLASSES[1]}": ratio}, {}


def added_product() -> dict[str, float]:
    """The command that adds a product to a checkpoint of many, from the start of the command to the new file."""
    with tempfile.TemporaryDirectory() as folder:
        root, new = Path(folder) / "data", Path(folder) / "new/added"
        for number in range(KNOWN_PRODUCTS):
            mvtec_class(root / f"{number:03}", train=2, good=1, bad=1, size=(SIZE, SIZE))
        mvtec_class(new, train=ADDED_IMAGES, good=1, bad=1, size=(SIZE, SIZE), mode="1")
        run = engine(Path(folder) / "results", limit_val_batches=0)
        run.fit(Hgad(pre_trained=False, image_size=SIZE), datamodule=datamodule_of(root))
        checkpoint = str(run.best_model_path)
        command = ["add-product", "--ckpt_path", checkpoint, "--data.root", str(new), "--output", f"{folder}/new.ckpt"]
        seconds = median_seconds(add=lambda: cli.main(command))
    return {f"a product of {ADDED_IMAGES} images added to {KNOWN_PRODUCTS}, s": seconds["add"]}


def fitted(num_classes: int, images: int) -> HgadModel:
    """A model of that many classes, fitted to random features of some images."""
    model = Hgad(pre_trained=False, image_size=SIZE, num_classes=num_classes).model
    model.to(device()).start_moments()
    dims = model.encoder.out_dims
    for rows in torch.arange(images, device=device()).split(BATCH):
        features = [
            torch.randn(len(rows), dim, SIZE // stride, SIZE // stride, device=device())
            for dim, stride in zip(dims, (8, 16), strict=True)
        ]
        model.add_moments(features, rows % num_classes)
    model.fit()
    return model
