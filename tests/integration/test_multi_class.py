# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of MultiClass with anomalib's models and Engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anomalib.data import AnomalibDataModule
from anomalib.metrics import AUROC, Evaluator
from anomalib.models import Padim, Patchcore
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Resize

from anomalib_hgad.data.multi_class import MultiClass
from tests.helpers import trees
from tests.helpers.engines import engine

pytestmark = pytest.mark.slow


def padim(**kwargs: object) -> Padim:
    """A small Padim without downloads."""
    return Padim("resnet18", ["layer1"], pre_trained=False, n_features=8, **kwargs)


def patchcore(**kwargs: object) -> Patchcore:
    """A small Patchcore without downloads."""
    return Patchcore("resnet18", ["layer1"], pre_trained=False, coreset_sampling_ratio=0.01, **kwargs)


def pictures(folder: Path) -> set[str]:
    """The saved pictures below the results folder."""
    return {str(path).split("/images/")[1] for path in folder.glob("*/*/v0/images/**/*.*")}


@pytest.mark.parametrize("model", [padim, patchcore])
def test_models_of_anomalib(tmp_path: Path, model: type[AnomalibModule]) -> None:
    """Models train, test and predict on classes with masks and without, of two sizes, and keep all pictures apart."""
    trees.mvtec_class(tmp_path / "plant/bolt")
    trees.mvtec_class(tmp_path / "plant/cap", mode="L")
    trees.mvtec_class(tmp_path / "plant/nut", masks=False, size=(40, 24), suffix=".jpg")
    datamodule = MultiClass(
        root=tmp_path / "plant", num_workers=0, eval_batch_size=3, val_split_mode="same_as_test", train_batch_size=5
    )
    resize = PreProcessor(transform=Resize((32, 32)))
    runner, detector = engine(tmp_path / "results"), model(pre_processor=resize)
    runner.fit(detector, datamodule=datamodule)
    # The size is that of the model's Resize, which is applied before images become a batch.
    assert {tuple(item.image.shape) for item in datamodule.train_data} == {(3, 32, 32)}
    figures = runner.test(detector, datamodule=datamodule)[0]
    assert set(figures) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    kinds = [f"{kind}/00{number}" for kind in ("crack", "good") for number in range(2)]
    expected = {f"{name}/test/{kind}.png" for name in ("bolt", "cap") for kind in kinds}
    assert pictures(tmp_path / "results") == expected | {f"nut/test/{kind}.jpg" for kind in kinds}
    for predictions in (
        runner.predict(detector, datamodule=datamodule),
        runner.predict(detector, dataloaders=datamodule.test_dataloader()),
    ):
        names = [name for batch in predictions for name in batch.class_name]
        assert names == ["bolt"] * 4 + ["cap"] * 4 + ["nut"] * 4
        for batch in predictions:
            assert (batch.gt_mask is None) == ("nut" in batch.class_name)


def test_pixel_figures_are_of_the_classes_with_masks(tmp_path: Path) -> None:
    """A class without masks changes the image figures, not the pixel figures, however the batches fall."""
    trees.mvtec_class(tmp_path / "plant/bolt")
    trees.mvtec_class(tmp_path / "plant/nut", masks=False)
    trees.mvtec_class(tmp_path / "plant/zip")

    def evaluator() -> Evaluator:
        return Evaluator(test_metrics=[AUROC(["anomaly_map", "gt_mask"], prefix="pixel_", strict=False)])

    def datamodule(names: list[str]) -> AnomalibDataModule:
        return MultiClass(
            root=tmp_path / "plant", categories=names, num_workers=0, val_split_mode="same_as_test", eval_batch_size=5
        )

    model = padim(evaluator=evaluator(), visualizer=False)
    runner = engine(tmp_path / "results")
    runner.fit(model, datamodule=datamodule(["bolt", "nut", "zip"]))
    with_nut = runner.test(model, datamodule=datamodule(["bolt", "nut", "zip"]))
    without_nut = runner.test(model, datamodule=datamodule(["bolt", "zip"]))
    assert with_nut[0]["pixel_AUROC"] == pytest.approx(without_nut[0]["pixel_AUROC"], abs=1e-6)
    assert runner.test(model, datamodule=datamodule(["nut"])) == [{}]


def test_pictures_of_synthetic_test_images(tmp_path: Path) -> None:
    """Test images that each class makes up have equal file names far from its folder, and yet pictures of their own."""
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / "plant" / name, good=4, bad=0)
    torch.manual_seed(0)
    datamodule = MultiClass(
        root=tmp_path / "plant", num_workers=0, test_split_mode="synthetic", val_split_mode="same_as_test"
    )
    runner, model = engine(tmp_path / "results"), padim()
    runner.fit(model, datamodule=datamodule)
    runner.test(model, datamodule=datamodule)
    samples = datamodule.test_data.samples
    assert sorted(samples.groupby("class_name")["label_index"].sum()) == [2, 2]
    assert len(pictures(tmp_path / "results")) == len(samples) == 8


def test_no_validation_images(tmp_path: Path) -> None:
    """A model fits and tests without validation images."""
    trees.mvtec_class(tmp_path / "plant/bolt")
    datamodule = MultiClass(root=tmp_path / "plant", num_workers=0, val_split_mode="none")
    runner, model = engine(tmp_path / "results"), padim(visualizer=False)
    runner.fit(model, datamodule=datamodule)
    assert runner.test(model, datamodule=datamodule)[0]["image_AUROC"] >= 0
