# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Where the pictures of images go, without a model that predicts them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.visualization import ImageVisualizer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_hgad.evaluation.picture_selection import SAMPLED, WORST
from anomalib_hgad.evaluation.pictures import SeparatePictures, SomePictures
from tests.helpers import trees


def pictures_after(run: Path, stage: TrainerFn, files: list[Path], datamodule: object = None) -> list[str]:
    """Let a visualizer of anomalib's save a picture of each file, and list all that there are."""
    loader = SimpleNamespace(dataset=SimpleNamespace(image_filenames=files))
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=stage), datamodule=datamodule, predict_dataloaders=loader, default_root_dir=run
    )
    visualizer = ImageVisualizer(field_size=(8, 8))
    SeparatePictures.take_over(visualizer)
    testing = stage == TrainerFn.TESTING
    (visualizer.on_test_start if testing else visualizer.on_predict_start)(trainer, None)
    for number, file in enumerate(files):
        path = trees.write_image(file)
        batch = ImageBatch(
            image=torch.rand(1, 3, 8, 8), anomaly_map=torch.rand(1, 8, 8), image_path=[str(path)], gt_label=None
        )
        save = visualizer.on_test_batch_end if testing else visualizer.on_predict_batch_end
        save(trainer, None, batch, batch, number)
    assert visualizer.output_dir is None
    return sorted(path.relative_to(run / "images").as_posix() for path in (run / "images").rglob("*.*"))


def test_prediction_keeps_the_folders_below_the_predicted_one(tmp_path: Path) -> None:
    files = [tmp_path / "a" / name for name in ("bolt/cam1/0.png", "nut/cam1/0.png", "볼트/x.bmp")]
    found = pictures_after(tmp_path / "run", TrainerFn.PREDICTING, files)
    assert found == ["bolt/cam1/0.png", "nut/cam1/0.png", "볼트/x.bmp"]


def test_prediction_keeps_the_folders_of_links(tmp_path: Path) -> None:
    """However their files are called, and where they are."""
    files = [tmp_path / "a" / name for name in ("bolt/0.png", "nut/0.png")]
    for number, file in enumerate(files):
        target = trees.write_image(tmp_path / f"raw {number}/0.png")
        file.parent.mkdir(parents=True)
        file.symlink_to(target)
    assert pictures_after(tmp_path / "run", TrainerFn.PREDICTING, files) == ["bolt/0.png", "nut/0.png"]


def test_predictions_one_after_another_keep_all_pictures(tmp_path: Path) -> None:
    """Also where a picture has the name that another one would get."""
    run = tmp_path / "run"
    pictures_after(run, TrainerFn.PREDICTING, [tmp_path / "a/0.png", tmp_path / "a/1.png"])
    before = (run / "images/0.png").read_bytes()
    found = pictures_after(run, TrainerFn.PREDICTING, [tmp_path / "b/0.png", tmp_path / "b/0_1.png"])
    assert found == ["0.png", "0_1.png", "0_1_1.png", "1.png"]
    assert (run / "images/0.png").read_bytes() == before


def test_test_replaces_the_pictures_of_the_last_test(tmp_path: Path) -> None:
    """But not those of images of its own, whose datamodule's name does not tell them apart."""
    files = [tmp_path / "data/one/bad/0.png", tmp_path / "data/two/bad/0.png"]
    datamodule = SimpleNamespace(name="elsewhere", category="")
    for _ in range(2):
        found = pictures_after(tmp_path / "run", TrainerFn.TESTING, files, datamodule)
        assert found == ["bad/0.png", "bad/0_1.png"]
    found = pictures_after(tmp_path / "run", TrainerFn.PREDICTING, files[:1], datamodule)
    assert found == ["bad/0.png", "bad/0_1.png", "bad/0_2.png"]


@pytest.mark.parametrize("name", ["data", "DATA"])
def test_test_keeps_the_folders_below_that_of_the_datamodule(tmp_path: Path, name: str) -> None:
    """As anomalib does."""
    files = [tmp_path / "data/bolt/bad/0.png", tmp_path / "data/nut/bad/0.png"]
    datamodule = SimpleNamespace(name=name, category=None)
    assert pictures_after(tmp_path / "run", TrainerFn.TESTING, files, datamodule) == ["bolt/bad/0.png", "nut/bad/0.png"]


def test_visualizer_of_a_user_stays(tmp_path: Path) -> None:
    class Own(ImageVisualizer):
        pass

    visualizer = Own()
    SeparatePictures.take_over(visualizer)
    assert type(visualizer) is Own


def test_test_of_many_images_has_pictures_of_the_worst_and_a_sample(tmp_path: Path) -> None:
    """Those of an earlier test that are not among them go, too."""
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=TrainerFn.TESTING), datamodule=None, default_root_dir=tmp_path / "run"
    )
    number, rows = 40, WORST + SAMPLED
    paths = [trees.write_image(tmp_path / f"data/{row}.png") for row in range(number)]
    scores = torch.linspace(0, 1, number)[torch.randperm(number, generator=torch.Generator().manual_seed(0))]
    for order in (scores, scores.flip(0)):
        visualizer = SomePictures(field_size=(8, 8))
        visualizer.on_test_start(trainer, None)
        for row, score in enumerate(order):
            batch = ImageBatch(
                image=torch.rand(1, 3, 8, 8),
                anomaly_map=torch.rand(1, 8, 8),
                pred_score=score[None],
                gt_label=torch.tensor([False]),
                image_path=[str(paths[row])],
            )
            visualizer.on_test_batch_end(trainer, None, batch, batch, row)
        found = {int(picture.stem) for picture in (tmp_path / "run/images").rglob("*.png")}
        assert len(found) == visualizer.written == rows
        assert set(order.argsort()[-WORST:].tolist()) <= found
        assert visualizer.note.startswith(f"{rows} of {number} images")
