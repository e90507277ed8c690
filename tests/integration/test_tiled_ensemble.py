# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's tiled ensemble, which trains a model for every tile of the images."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import anomalib.models
import pandas as pd
import pytest
import torch
import yaml
from anomalib.data import ImageBatch
from anomalib.models import Padim
from anomalib.pipelines.components.base import pipeline
from anomalib.pipelines.tiled_ensemble import EvalTiledEnsemble, TrainTiledEnsemble
from anomalib.pipelines.tiled_ensemble.components.metrics_calculation import MetricsCalculationJob
from anomalib.pipelines.tiled_ensemble.components.utils.ensemble_tiling import EnsembleTiler, TileCollater
from anomalib.pipelines.tiled_ensemble.components.utils.helper_functions import setup_transforms
from sklearn.metrics import f1_score, roc_auc_score
from torchvision.io import decode_image
from torchvision.transforms.v2 import RandomHorizontalFlip, Resize
from torchvision.transforms.v2.functional import hflip, resize

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.common.encoder import PyramidEncoder
from tests.helpers import trees
from tests.helpers.light import LIGHT

LIGHT_MODELS = {
    "Hgad": partial(Hgad, **LIGHT),
    "Padim": partial(Padim, backbone="resnet18", layers=["layer1"], pre_trained=False, n_features=20),
}
"""The ensemble gives settings of models to none: those of a model cannot be set together with a pre-processor."""

TILER = EnsembleTiler(tile_size=[32, 32], stride=32, image_size=[32, 64])


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / "data" / name, size=(64, 48))
    return tmp_path / "data"


def ensemble(data: dict[str, Any], model: str, folder: Path) -> Path:
    """Train and evaluate an ensemble of two models; gives the folder of its results."""
    modes = {"test_split_mode": "from_dir", "val_split_mode": "same_as_test", "num_workers": 0}
    config = {
        "seed": 0,
        "accelerator": "cpu",
        "default_root_dir": str(folder / "results"),
        "tiling": {"image_size": [32, 64], "tile_size": [32, 32], "stride": 32},
        "normalization_stage": "image",
        "thresholding_stage": "image",
        "data": data | {"init_args": data["init_args"] | modes},
        "SeamSmoothing": {"apply": True, "sigma": 2, "width": 0.1},
        "TrainModels": {"model": {"class_path": model}, "trainer": {"max_epochs": 1, "logger": False}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    training = TrainTiledEnsemble()
    training.run(training.get_parser().parse_args(["--config", str(folder / "config.yaml")]))
    evaluation = EvalTiledEnsemble(root_dir=training.root_dir)
    evaluation.run(evaluation.get_parser().parse_args(["--config", str(folder / "config.yaml")]))
    return training.root_dir


@pytest.mark.slow
@pytest.mark.parametrize("model", [pytest.param("Padim", marks=pytest.mark.nightly), "Hgad"])
def test_figures_are_those_of_whole_images_and_every_image_has_a_picture(
    classes: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batches: list[ImageBatch] = []
    run, encode = MetricsCalculationJob.run, PyramidEncoder.forward
    encoded: set[tuple[int, ...]] = set()

    def observed_run(job: MetricsCalculationJob, task_id: int | None = None) -> dict[str, Any]:
        batches.extend(job.predictions)
        return run(job, task_id)

    def observed_encode(encoder: PyramidEncoder, images: torch.Tensor) -> list[torch.Tensor]:
        encoded.add(tuple(images.shape[-2:]))
        return encode(encoder, images)

    monkeypatch.setattr(MetricsCalculationJob, "run", observed_run)
    monkeypatch.setattr(PyramidEncoder, "forward", observed_encode)
    monkeypatch.setattr(pipeline, "redirect_logs", lambda _: None)
    monkeypatch.setattr(anomalib.models, model, LIGHT_MODELS[model])
    data = {"class_path": "MultiClass", "init_args": {"root": str(classes), "name": "data"}}
    results = ensemble(data, model, tmp_path)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []

    figures = pd.read_csv(results / "metric_results.csv").iloc[0]
    fields = ("gt_label", "pred_score", "pred_label", "gt_mask", "anomaly_map", "pred_mask")
    all_values = {field: torch.cat([getattr(batch, field) for batch in batches]) for field in fields}
    values = {field: of_all.flatten().numpy() for field, of_all in all_values.items()}
    assert values["gt_label"].sum() == 4
    assert all_values["anomaly_map"].shape == (8, 32, 64)
    assert figures["image_AUROC"] == pytest.approx(roc_auc_score(values["gt_label"], values["pred_score"]))
    assert figures["image_F1Score"] == pytest.approx(f1_score(values["gt_label"], values["pred_label"]))
    assert figures["pixel_AUROC"] == pytest.approx(roc_auc_score(values["gt_mask"], values["anomaly_map"]), abs=1e-6)
    assert figures["pixel_F1Score"] == pytest.approx(f1_score(values["gt_mask"], values["pred_mask"]))
    assert len(list((results / "images").rglob("*.png"))) == 8
    assert not list(results.glob("predict*.csv")), "the scores of a tile are not those of an image"
    assert encoded == ({(32, 32)} if model == "Hgad" else set()), "pasted patches that calibrate are cut as well"


def tiles(classes: Path, column: int, **settings: Any) -> MultiClass:
    """Data of the tiles in a column, as the ensemble makes it."""
    data = MultiClass(root=classes, num_workers=0, **settings)
    data.setup()
    setup_transforms(data, image_size=(32, 64))
    data.external_collate_fn = TileCollater(TILER, (0, column), default_collate_fn=ImageBatch.collate)
    return data


@pytest.mark.parametrize("flipped", [False, True])
def test_tile_is_a_part_of_the_resized_image_after_the_augmentations_of_the_user(classes: Path, flipped: bool) -> None:
    settings = {"test_augmentations": RandomHorizontalFlip(p=1.0)} if flipped else {}
    (batch,) = tiles(classes, 1, name="data", **settings).test_dataloader()
    assert batch.class_name == ["bolt"] * 4 + ["nut"] * 4
    for path, tile, mask in zip(batch.image_path, batch.image, batch.gt_mask, strict=True):
        image = resize(decode_image(path) / 255, [32, 64], antialias=True)
        expected = (hflip(image) if flipped else image)[:, :, 32:]
        torch.testing.assert_close(torch.as_tensor(tile), expected, atol=0.01, rtol=0)
        assert mask.shape == (32, 32)
        assert bool(mask.any()) == (flipped and "crack" in path)  # the defect is on the left


def test_pictures_that_the_ensemble_would_lose_are_named(classes: Path) -> None:
    with pytest.warns(UserWarning, match=r"pictures of \d+ images to the same files: .*bolt.*name='data'"):
        tiles(classes, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiles(classes, 0, name="data")


def test_class_without_masks_is_named_before_the_training(classes: Path) -> None:
    trees.mvtec_class(classes / "washer", masks=False)
    with pytest.raises(ValueError, match="needs masks of all classes, but washer has none"):
        tiles(classes, 0, name="data")


def test_collate_function_from_outside_batches_items_with_their_classes(classes: Path) -> None:
    data = MultiClass(root=classes, num_workers=0)
    data.setup()
    for collate in (ImageBatch.collate, TileCollater(TILER, (0, 0), ImageBatch.collate)):
        data.external_collate_fn = collate
        data.train_data.augmentations = Resize([32, 64])
        batch = next(iter(data.train_dataloader()))
        assert sorted(batch.class_name) == ["bolt"] * 4 + ["nut"] * 4
    data.external_collate_fn = None
    assert next(iter(data.test_dataloader())).class_name == ["bolt"] * 4 + ["nut"] * 4
