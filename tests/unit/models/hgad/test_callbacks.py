# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What is fitted without gradients is fitted before it is used, saved or validated, and says what it left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from lightning.pytorch import Callback, Trainer

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.models.callbacks import UNVALIDATED_KEY
from tests.helpers import trees
from tests.helpers.engines import QUIET, engine
from tests.helpers.light import LIGHT

CLOSED_FORM = LIGHT | {"flow": "linear", "flow_arguments": None, "covariance": "full", "score": "contrast"}
TRAINED = LIGHT | {"covariance": "full", "score": "contrast"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in ("bolt", "nut"):
        trees.mvtec_class(root / name)
    return root


def data(root: Path, **settings: object) -> MultiClass:
    return MultiClass(root=root, **{"train_batch_size": 4, "num_workers": 0} | settings)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [CLOSED_FORM, LIGHT], ids=["closed form", "trained"])
def test_checkpoint_without_validation_images_has_the_constants(
    settings: dict[str, object], root: Path, tmp_path: Path
) -> None:
    """Though the trainer would validate."""
    model, run = Hgad(**settings, visualizer=False), engine(tmp_path, max_epochs=1)
    run.fit(model, datamodule=data(root, val_split_mode="none"))
    saved = torch.load(run.best_model_path, weights_only=True)
    assert not saved.get(UNVALIDATED_KEY)
    assert (model.model.calibration.spread != 1).all()
    for name, tensor in model.model.calibration.state_dict().items():
        assert torch.equal(saved["state_dict"][f"model.calibration.{name}"], tensor), name


@pytest.mark.slow
def test_checkpoint_before_the_fit_counts_as_untrained(root: Path, tmp_path: Path) -> None:
    """It still has the whitening and the mixture of the start, while the pass over the images goes on."""
    every = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    last = ModelCheckpoint(dirpath=tmp_path, filename="last")
    engine(tmp_path, every, last).fit(Hgad(**CLOSED_FORM, visualizer=False), datamodule=data(root))
    assert Hgad.load_from_checkpoint(tmp_path / "last.ckpt").is_trained
    unfitted = Hgad.load_from_checkpoint(tmp_path / "step=2.ckpt")  # after the last of the batches
    with pytest.raises(ValueError, match="The model was not trained"):
        engine(tmp_path).predict(unfitted, data_path=root / "nut/test")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [CLOSED_FORM, TRAINED], ids=["closed form", "trained"])
def test_sanity_check_of_a_plain_trainer_fits_nothing(settings: dict[str, object], root: Path, tmp_path: Path) -> None:
    """It ends as a training without one."""
    models = []
    for steps in (0, 2):
        trainer = Trainer(**QUIET | {"enable_checkpointing": False}, num_sanity_val_steps=steps)
        trainer.fit(model := Hgad(**settings, seed=0, visualizer=False), datamodule=data(root))
        models.append(model)
    without, with_check = (model.model.state_dict() for model in models)
    for name, tensor in without.items():
        torch.testing.assert_close(with_check[name], tensor, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"limit_train_batches": 1}, "trainer.limit_train_batches=1"),
        ({"overfit_batches": 1}, "trainer.overfit_batches=1"),
        ({"max_epochs": -1, "max_steps": 1}, "trainer.max_steps=1"),
        ({}, None),
    ],
    ids=["batches", "overfit", "steps", "all"],
)
def test_part_of_the_images_is_named(
    settings: dict[str, object], said: str | None, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Hgad(**CLOSED_FORM, visualizer=False)
    engine(tmp_path, **settings).fit(model, datamodule=data(root, train_batch_size=1))
    warnings = [record.getMessage() for record in caplog.records if "fitted to" in record.getMessage()]
    if said is None:
        assert warnings == []
        return
    (warning,) = warnings
    assert f"fitted to 1 of {len(model.training_data.images)} batches" in warning
    assert said in warning
    assert ("No image of: bolt." in warning) != ("No image of: nut." in warning)


class Kept(Callback):
    """What is kept in main memory of images with pasted patches."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Hgad, *_: object) -> None:
        self.patched = pl_module.training_data.patched


@pytest.mark.slow
def test_memory_of_a_fit_in_one_pass_is_freed(root: Path, tmp_path: Path) -> None:
    """Sums of features are gone in the end; those of images that are needed once are not kept at all."""
    model, kept = Hgad(**CLOSED_FORM, visualizer=False), Kept()
    engine(tmp_path, kept).fit(model, datamodule=data(root))
    assert not model.model._moments
    assert kept.patched is None
    assert (model.model.calibration.pixel_spread != 1).all()
