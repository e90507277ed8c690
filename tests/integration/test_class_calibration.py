# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A model of anomalib on two classes, its scores calibrated class by class, from the training to a prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from anomalib.cli import AnomalibCLI
from anomalib.deploy import ExportType
from anomalib.models import Padim
from anomalib.post_processing import PostProcessor
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomalib_hgad import ClassEvaluator, Hgad, MultiClass, MultiClassCalibration
from anomalib_hgad.evaluation.predictions import Prediction, read_predictions
from tests.helpers import trees
from tests.helpers.engines import all_figures, engine
from tests.helpers.light import LIGHT

pytestmark = pytest.mark.slow

CLASSES = ["bolt", "nut"]


class Run(NamedTuple):
    """A training and its test.

    Attributes:
        model: The model.
        folder: Folder of the run.
        figures: All figures of the test.
        predictions: What the test says of the images.
    """

    model: Padim
    folder: Path
    figures: dict[str, float]
    predictions: list[Prediction]


def padim(post_processor: PostProcessor) -> Padim:
    return Padim(
        pre_trained=False,
        layers=["layer1"],
        n_features=8,
        pre_processor=Padim.configure_pre_processor((32, 32)),
        post_processor=post_processor,
        evaluator=ClassEvaluator(),
        visualizer=False,
    )


def products(root: Path) -> MultiClass:
    sizes: dict[str, Any] = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0}
    return MultiClass(root=root, val_split_mode="from_train", val_split_ratio=0.5, seed=0, **sizes)


def trained(root: Path, folder: Path, post_processor: PostProcessor) -> Run:
    torch.manual_seed(0)
    model = padim(post_processor)
    run = engine(folder)
    run.train(model, datamodule=products(root))
    of_run = Path(run.trainer.default_root_dir)
    return Run(model, of_run, all_figures(run), read_predictions(of_run))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one of them much noisier, with defects that are hard to see."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, noise in zip(CLASSES, (5, 40), strict=True):
        trees.mvtec_class(root / name, train=16, good=8, bad=8)
        for file in root.glob(f"{name}/t*/*/*.png"):
            pixels = rng.normal(100, noise, (32, 32, 3))
            if file.parent.name == "crack":
                pixels[2:10, 2:10] += noise * rng.uniform(1, 4)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return root


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(root, tmp_path_factory.mktemp("plain"), PostProcessor())


@pytest.fixture(scope="module")
def calibrated(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(root, tmp_path_factory.mktemp("calibrated"), MultiClassCalibration(false_positive_rate=0.2))


@pytest.fixture(scope="module")
def classifier(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of the closed form, on images of another size and another pre-processing."""
    light = {name: LIGHT[name] for name in ("backbone", "pre_trained")}
    model = Hgad(**light, levels={"layer1": [1.0]}, image_size=64, seed=0, visualizer=False)
    run = engine(tmp_path_factory.mktemp("classifier"))
    run.train(model, datamodule=products(root))
    return Path(run.trainer.checkpoint_callback.best_model_path)


def test_classes_keep_their_figures(plain: Run, calibrated: Run) -> None:
    for level in ("image", "pixel"):
        for name in CLASSES:
            key = f"{level}_AUROC_{name}"
            assert calibrated.figures[key] == pytest.approx(plain.figures[key], abs=1e-4)
    assert calibrated.figures["image_AUROC_pooled"] > plain.figures["image_AUROC_pooled"] + 0.05


def test_pooled_figure_is_of_the_calibrated_scores(plain: Run, calibrated: Run) -> None:
    """They are an increasing map of the plain ones within each class, and not cut off."""
    labels = [row.gt_label for row in calibrated.predictions]
    scores = [row.raw_score for row in calibrated.predictions]
    assert calibrated.figures["image_AUROC_pooled"] == pytest.approx(roc_auc_score(labels, scores))
    for name in CLASSES:
        before, after = (
            np.array(
                [
                    row.raw_score
                    for row in sorted(run.predictions, key=lambda row: row.image_path)
                    if row.class_name == name
                ]
            )
            for run in (plain, calibrated)
        )
        slope, offset = np.polyfit(before, after, 1)
        np.testing.assert_allclose(slope * before + offset, after, rtol=1e-3, atol=1e-3)
        assert slope > 0


def test_checkpoint_keeps_the_scales(root: Path, calibrated: Run, tmp_path: Path) -> None:
    checkpoint = next(calibrated.folder.rglob("*.ckpt"))
    model = Padim.load_from_checkpoint(
        checkpoint, post_processor=MultiClassCalibration(), evaluator=ClassEvaluator(), visualizer=False
    )
    assert model.post_processor.class_names == CLASSES
    run = engine(tmp_path)
    run.test(model, datamodule=products(root))
    again = all_figures(run)
    assert again == pytest.approx({name: calibrated.figures[name] for name in again}, abs=1e-4)


def test_class_is_inferred_where_nobody_gives_it(root: Path, calibrated: Run, classifier: Path, tmp_path: Path) -> None:
    """Images of a bare folder get the scores that they have with their class given."""
    checkpoint = next(calibrated.folder.rglob("*.ckpt"))
    model = Padim.load_from_checkpoint(
        checkpoint, post_processor=MultiClassCalibration(classifier), evaluator=ClassEvaluator(), visualizer=False
    )
    predicted = engine(tmp_path).predict(model, data_path=root / "nut/test/crack")
    scores = {
        Path(path).name: score
        for batch in predicted
        for path, score in zip(batch.image_path, batch.pred_score.flatten().tolist(), strict=True)
    }
    given = {
        Path(row.image_path).name: row.pred_score
        for row in calibrated.predictions
        if "nut/test/crack" in row.image_path
    }
    assert scores == pytest.approx(given, abs=1e-4)
    assert not any(name.startswith("post_processor._inference") for name in model.state_dict())


def test_without_a_classifier_a_bare_folder_is_refused(root: Path, calibrated: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="these images have no class"):
        engine(tmp_path).predict(calibrated.model, data_path=root / "nut/test/crack")


def test_onnx_export_is_refused(calibrated: Run, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="an exported graph gets no class"):
        engine(tmp_path).export(calibrated.model, ExportType.ONNX, export_root=tmp_path, input_size=(32, 32))
    assert not list(tmp_path.rglob("*.onnx"))


@pytest.mark.nightly
def test_command_line(root: Path, tmp_path: Path) -> None:
    AnomalibCLI(
        [
            *("train", "--model=Padim", "--model.pre_trained=false", "--model.layers=[layer1]", "--model.n_features=8"),
            "--model.post_processor=anomalib_hgad.MultiClassCalibration",
            "--model.post_processor.false_positive_rate=0.2",
            "--model.evaluator=anomalib_hgad.ClassEvaluator",
            *("--data=MultiClass", f"--data.root={root}", "--data.num_workers=0"),
            *("--data.val_split_mode=from_train", "--data.val_split_ratio=0.5"),
            *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
            f"--default_root_dir={tmp_path}",
        ]
    )
    pooled = json.loads(next(tmp_path.rglob("results.json")).read_text())["pooled"]
    rows = read_predictions(next(tmp_path.rglob("predictions.csv")).parent)
    scores, labels = [row.raw_score for row in rows], [row.gt_label for row in rows]
    assert pooled["image_AUROC"] == pytest.approx(roc_auc_score(labels, scores))
