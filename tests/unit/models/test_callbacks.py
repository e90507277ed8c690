# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a run leaves in its folder, and how it ends."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.visualization import ImageVisualizer
from lightning.pytorch import Callback, Trainer

from anomalib_hgad import Hgad, MultiClass, UniAd
from anomalib_hgad.evaluation.pictures import SeparatePictures
from anomalib_hgad.evaluation.predictions import PIXEL_COLUMNS, PREDICTED_FILE, read_predictions, read_table
from tests.helpers import trees
from tests.helpers.commands import FAST_FLAGS, LIGHT_FLAGS, in_process
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MultiClass:
    root = tmp_path_factory.mktemp("data")
    for name in ("bolt", "nut"):
        trees.mvtec_class(root / name)
    return MultiClass(root=root, train_batch_size=4, eval_batch_size=3, num_workers=0)


@pytest.fixture(scope="module")
def tested(data: MultiClass, tmp_path_factory: pytest.TempPathFactory) -> tuple[Hgad, Path]:
    """A model that was trained and tested, and the results folder."""
    folder = tmp_path_factory.mktemp("results")
    model = Hgad(**LIGHT, seed=0, visualizer=False)
    engine(folder).train(model, datamodule=data)
    return model, folder


class ValidatedWeights(Callback):
    """Keeps the weights of the last validation."""

    def on_validation_start(self, trainer: Trainer, pl_module: Hgad | UniAd) -> None:
        self.weights = {name: weight.clone() for name, weight in pl_module.named_parameters()}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Hgad, {"max_epochs": 5, "check_val_every_n_epoch": 3}),
        pytest.param(UniAd, {"max_epochs": 5, "check_val_every_n_epoch": 3}, marks=pytest.mark.nightly),
        pytest.param(Hgad, {"max_epochs": 1, "check_val_every_n_epoch": 3}, marks=pytest.mark.nightly),
        (Hgad, {"max_epochs": -1, "max_steps": 5}),  # in the midst of the third epoch
        (UniAd, {"max_epochs": 2, "check_val_every_n_epoch": None, "val_check_interval": 3}),
    ],
    ids=["epochs", "epochs of UniAD", "never", "steps", "batches"],
)
def test_last_weights_are_validated_and_saved(
    kind: type[Hgad | UniAd], settings: dict[str, Any], data: MultiClass, tmp_path: Path
) -> None:
    """Scales, thresholds and checkpoint are of the model that is tested. There are two steps in an epoch."""
    light = LIGHT | {"lr": 1e-3} if kind is Hgad else LIGHT_UNIAD
    validated = ValidatedWeights()
    run = engine(tmp_path, validated, **settings)
    model = kind(**light, visualizer=False)
    (figures,) = run.train(model, datamodule=data)
    saved = torch.load(run.best_model_path, weights_only=True)["state_dict"]
    for name, weight in model.named_parameters():
        assert torch.equal(weight, validated.weights[name]), name
        assert torch.equal(weight, saved[name]), name
    (again,) = engine(tmp_path).test(kind(**light), datamodule=data, ckpt_path=run.best_model_path)
    assert again == pytest.approx(figures, nan_ok=True)


@pytest.mark.parametrize(
    ("weights_only", "interval", "expected"), [(False, 2, {1: 1, 2: 2, 3: 3}), (True, 1, {1: 1, 2: 2, 3: 1})]
)
def test_checkpoint_between_two_validations_says_so(
    weights_only: bool,
    interval: int,
    expected: dict[int, int],
    data: MultiClass,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of the first epochs too, before any validation. For weights alone, Lightning asks no callback what to save."""
    often = {"every_n_train_steps": 1, "save_top_k": -1, "save_weights_only": weights_only}
    every = ModelCheckpoint(dirpath=tmp_path, filename="{step}", **often)
    run = engine(tmp_path, every, max_epochs=2, check_val_every_n_epoch=interval)
    run.fit(UniAd(**LIGHT_UNIAD, visualizer=False), datamodule=data)
    for step, steps in expected.items():
        caplog.clear()
        UniAd.load_from_checkpoint(tmp_path / f"step={step}.ckpt")
        assert f"saved {steps} steps after the last validation" in caplog.text
    run.trainer.save_checkpoint(tmp_path / "end.ckpt")
    caplog.clear()
    UniAd.load_from_checkpoint(tmp_path / "end.ckpt")
    assert "after the last validation" not in caplog.text


class Terminator(Callback):
    """Sends SIGTERM at a moment of a run."""

    def __init__(self, moment: str) -> None:
        setattr(self, moment, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


@pytest.mark.parametrize("moment", ["on_train_batch_start", "on_validation_start", "on_train_end", "on_test_end"])
def test_run_that_is_terminated_says_so(data: MultiClass, tmp_path: Path, moment: str) -> None:
    """128 + 15 is what a shell calls a program that SIGTERM has ended: nothing after ``&&`` is run."""
    model = UniAd(**LIGHT_UNIAD, visualizer=False)
    with pytest.raises(SystemExit) as ended:
        engine(tmp_path, Terminator(moment)).train(model, datamodule=data)
    assert ended.value.code == 143


class Broken(Callback):
    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        if batch_idx == 1:
            msg = "broken off"
            raise RuntimeError(msg)


def test_prediction_of_the_tested_images_leaves_the_table_of_the_test_beside_its_own(
    tested: tuple[Hgad, Path], data: MultiClass
) -> None:
    model, folder = tested
    run = engine(folder)
    run.predict(model, datamodule=data, return_predictions=False)
    place = Path(run.trainer.default_root_dir)
    rows = read_predictions(place)
    assert len(rows) == 8
    assert {row.pred_label for row in rows} <= {True, False}
    alone = {"pred_score": None, "raw_score": None, "novelty": None} | dict.fromkeys(PIXEL_COLUMNS)
    by_test = [replace(row, **alone) for row in rows]
    predicted = read_table(place / PREDICTED_FILE)
    assert [replace(row, pred_score=None, raw_score=None, novelty=None) for row in predicted] == by_test
    for name in ("pred_score", "raw_score", "novelty"):
        values = [getattr(row, name) for row in rows]
        assert [getattr(row, name) for row in predicted] == pytest.approx(values, rel=1e-4, abs=1e-5)


def test_folder_of_images_without_truth(tested: tuple[Hgad, Path], data: MultiClass, tmp_path: Path) -> None:
    """A second prediction takes the place of the first as a whole; one that is broken off leaves it as it is."""
    model, _ = tested
    images = [trees.write_image(tmp_path / "line" / f"{number}.png") for number in range(5)]
    run = engine(tmp_path)
    run.predict(model, data_path=tmp_path / "line", return_predictions=False)
    table = Path(run.trainer.default_root_dir) / PREDICTED_FILE
    rows = read_table(table)
    assert [row.image_path for row in rows] == list(map(str, images))
    for row in rows:
        assert (row.mask_path, row.class_name, row.gt_label) == (None, None, None)
        assert row.pred_class_name in {"bolt", "nut", "unknown"}
        assert row.novelty is not None
    images[0].unlink()
    engine(tmp_path).predict(model, data_path=tmp_path / "line", return_predictions=False)
    assert read_table(table) == rows[1:]
    with pytest.raises(RuntimeError, match="broken off"):
        engine(tmp_path, Broken()).predict(model, data_path=tmp_path / "line", return_predictions=False)
    assert read_table(table) == rows[1:]
    engine(tmp_path).predict(model, data_path=tmp_path / "line", return_predictions=False)
    assert read_table(table) == rows[1:]


def test_pictures_of_predictions_are_kept_apart(tested: tuple[Hgad, Path], tmp_path: Path) -> None:
    """In one run and in two. Those of a test are replaced by the next test alone."""
    model, _ = tested
    model.visualizer = ImageVisualizer()
    for line in ("bolt", "nut"):
        trees.write_image(tmp_path / "parts" / line / "cam1/0.png")
    run = engine(tmp_path / "results")
    for folder in ("parts", "parts/bolt", "parts/nut"):
        run.predict(model, data_path=tmp_path / folder, return_predictions=False)
    images = Path(run.trainer.default_root_dir) / "images"
    pictures = ["bolt/cam1/0.png", "nut/cam1/0.png", "0.png", "0_1.png"]
    assert sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png")) == sorted(pictures)
    assert type(model.visualizer) is SeparatePictures
    model.visualizer = None


def test_command_keeps_no_batch(tested: tuple[Hgad, Path], tmp_path: Path) -> None:
    checkpoint = next(tested[1].rglob("*.ckpt"))
    for number in range(3):
        trees.write_image(tmp_path / "line" / f"{number}.png")
    where = [f"--ckpt_path={checkpoint}", f"--data={tmp_path / 'line'}", f"--default_root_dir={tmp_path / 'results'}"]
    command = in_process("predict", "--model=Hgad", *LIGHT_FLAGS, "--model.visualizer=false", *where, *FAST_FLAGS)
    assert not command.engine.trainer.predict_loop.predictions
    assert len(read_table(next(tmp_path.rglob(PREDICTED_FILE)))) == 3


def test_batch_of_a_prediction_has_one_map_of_an_image(
    tested: tuple[Hgad, Path], data: MultiClass, tmp_path: Path
) -> None:
    """22 GB for 1000 images of 1024 x 1024 are 21 bytes a pixel: image, two maps and a mask."""
    batches = engine(tmp_path).predict(tested[0], datamodule=data)
    for batch in batches:
        maps = [value for value in vars(batch).values() if isinstance(value, torch.Tensor) and value.ndim > 2]
        bytes_of_a_pixel = sum(value.nbytes for value in maps) / (batch.batch_size * 32 * 32)
        assert bytes_of_a_pixel == 4 * 3 + 4 + 1 + 1 + 1  # image, map, its mask, that at the limit of the class, truth


def test_other_model(data: MultiClass, tmp_path: Path) -> None:
    run = engine(tmp_path)
    model = UniAd(**LIGHT_UNIAD, post_processor=False, visualizer=False)
    run.fit(model, datamodule=data)
    run.predict(model, datamodule=data, return_predictions=False)
    rows = read_table(Path(run.trainer.default_root_dir) / PREDICTED_FILE)
    assert {row.class_name for row in rows} == {"bolt", "nut"}
    assert len({row.pred_score for row in rows}) == len(rows) == 8
    assert {(row.pred_class_name, row.novelty) for row in rows} == {(None, None)}


@pytest.mark.parametrize("use", ["predict", "test"])
def test_folder_that_a_checkpoint_was_used_in_first_can_be_trained_in(
    use: str, tested: tuple[Hgad, Path], data: MultiClass, tmp_path: Path
) -> None:
    """Where anomalib finds no training, ``latest`` becomes a folder, and its own engine then fails on it."""
    model, _ = tested
    getattr(engine(tmp_path), use)(model, datamodule=data)
    place = tmp_path / "Hgad" / data.name
    left = sorted(file.name for file in (place / "v0").iterdir())
    engine(tmp_path).fit(Hgad(**LIGHT, visualizer=False), datamodule=data)
    assert (place / "latest").resolve() == place / "v1"
    assert (place / "v1/weights/lightning/model.ckpt").is_file()
    assert left
    assert left == sorted(file.name for file in (place / "v0").iterdir())
