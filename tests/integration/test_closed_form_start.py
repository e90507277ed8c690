# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Full covariances with a flow that is trained: it starts as the closed form, and ends no lower."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.models.hgad.best_state import TRAINING_KEY, density_state
from anomalib_hgad.models.hgad.criterion import StateFigures, SyntheticCriterion
from anomalib_hgad.models.hgad.normal_pass import inference, set_constants
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_FLOW_ARGUMENTS

pytestmark = pytest.mark.slow

EPOCHS = 3
FALLING = (0.9, 0.8, 0.7, 0.6)


def light_model(flow: str, **settings: Any) -> Hgad:
    own = {
        "flow": flow,
        "flow_arguments": LIGHT_FLOW_ARGUMENTS[flow],
        "covariance": "full",
        "score": "contrast",
        "levels": {"layer1": [1.0, 0.5]},
        "calibration_share": 0.3,
        "seed": 0,
    }
    return Hgad(**LIGHT | own | settings)


def datamodule(data: Path) -> MultiClass:
    return MultiClass(root=data, train_batch_size=4, num_workers=0)


def train(model: Hgad, data: Path, folder: Path, *callbacks: Callback, **settings: Any) -> Engine:
    checkpoint = settings.pop("ckpt_path", None)
    run = engine(folder, *callbacks, **settings)
    run.fit(model, datamodule=datamodule(data), ckpt_path=checkpoint)
    return run


def likelihoods_and_predictions(model: Hgad, data: Path) -> list[torch.Tensor]:
    """Log-likelihoods a of the levels, image scores, maps and posteriors of the test images of a class."""
    files = sorted((data / "nut/test").glob("*/*.png"))
    images = torch.stack([pil_to_tensor(Image.open(file)) / 255 for file in files])
    images, classes = model.pre_processor.transform(images), torch.ones(len(files), dtype=torch.int64)
    core = model.model
    levels = core.level_scores(core.read(core.encoder(images)), classes)
    _, given = core.predict(images, classes)
    return [*(level.log_likelihood for level in levels), given.pred_score, given.anomaly_map, given.class_posterior]


def judge(monkeypatch: pytest.MonkeyPatch, *aurocs: float) -> None:
    """Let the criterion say this of the states after 0, 1, 2... epochs."""
    figures = SyntheticCriterion.figures

    def told(criterion: SyntheticCriterion, trainer: Any, module: Any, epoch: float) -> StateFigures:
        auroc = float(np.interp(epoch, range(len(aurocs)), aurocs))
        return figures(criterion, trainer, module, epoch)._replace(image_auroc=auroc, pixel_auroc=auroc)

    monkeypatch.setattr(SyntheticCriterion, "figures", told)


class AtTheStart(Callback):
    """Looks at the model before the first step."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 0:
            with inference(trainer, pl_module.model):
                set_constants(trainer, pl_module)
                self.seen = likelihoods_and_predictions(pl_module, self.data)


class AfterEveryEpoch(Callback):
    """Takes flows and mixtures: of the training before each epoch's first step, and of the model after it."""

    def __init__(self) -> None:
        self.training: list[dict[str, torch.Tensor]] = []
        self.model: list[dict[str, torch.Tensor]] = []

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if len(self.training) == trainer.current_epoch:
            self.training.append(density_state(pl_module.model))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.model.append(density_state(pl_module.model))


def assert_equal_states(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("closed_form_start") / "plant"
    for name in ("bolt", "nut"):
        trees.mvtec_class(root / name, train=12)
    return root


@pytest.fixture(scope="module")
def closed_form(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    model = light_model("linear")
    train(model, data, tmp_path_factory.mktemp("linear"))
    return likelihoods_and_predictions(model.eval(), data)


@pytest.fixture(scope="module")
def falling(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Hgad, Engine, AfterEveryEpoch, Path]:
    """A training whose every epoch does harm, by the criterion."""
    model, states, folder = light_model("cflow"), AfterEveryEpoch(), tmp_path_factory.mktemp("falling")
    logger = CSVLogger(folder, flush_logs_every_n_steps=1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        judge(monkeypatch, *FALLING)
        run = train(model, data, folder, states, max_epochs=EPOCHS, logger=logger, log_every_n_steps=1)
    return model, run, states, Path(logger.log_dir)


@pytest.mark.parametrize("flow", ["cflow", "fastflow"])
def test_training_starts_as_the_closed_form(
    flow: str, closed_form: list[torch.Tensor], data: Path, tmp_path: Path
) -> None:
    look = AtTheStart(data)
    train(light_model(flow), data, tmp_path, look)
    for actual, expected in zip(look.seen, closed_form, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


def test_training_that_only_does_harm_ends_where_it_began(
    falling: tuple[Hgad, Engine, AfterEveryEpoch, Path], closed_form: list[torch.Tensor], data: Path
) -> None:
    model, run, states, _ = falling
    assert [figures.epoch for figures in model.training_course] == [0, 1, 2, 3]
    assert [figures.kept for figures in model.training_course] == [True, False, False, False]
    for actual, expected in zip(likelihoods_and_predictions(model.eval(), data), closed_form, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
    for state in states.model:
        assert_equal_states(state, states.model[0])
    assert differ(states.training[1], states.training[0]), "yet the training went on where it was"
    assert differ(states.training[2], states.training[1])
    loaded = Hgad.load_from_checkpoint(run.best_model_path or run.trainer.checkpoint_callback.last_model_path)
    assert loaded.training_course == model.training_course
    assert_equal_states(density_state(loaded.model), density_state(model.model))


def test_figures_are_logged(falling: tuple[Hgad, Engine, AfterEveryEpoch, Path]) -> None:
    model, _, _, folder = falling
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val_synthetic_image_AUROC"]]
    assert len(rows) == 1 + EPOCHS
    for row, figures in zip(rows, model.training_course, strict=True):
        logged = [float(row[f"val_{name}"]) for name in ("synthetic_image_AUROC", "synthetic_pixel_AUROC")]
        assert [*logged, float(row["val_log_likelihood"])] == pytest.approx(figures[1:4], rel=1e-5)


def test_centres_follow_the_flow_and_are_not_trained(falling: tuple[Hgad, Engine, AfterEveryEpoch, Path]) -> None:
    model, run, states, _ = falling
    trained = {id(parameter) for group in run.trainer.optimizers[0].param_groups for parameter in group["params"]}
    for level, prior in enumerate(model.model.priors):
        assert not prior.class_centers.requires_grad
        assert id(prior.class_centers) not in trained
        for name in ("class_centers", "class_whitening", "shared_whitening"):
            before, after = (state[f"priors.{level}.{name}"] for state in states.training[:2])
            assert not torch.equal(before, after), "refitted between the epochs"


def test_best_state_is_kept_the_earlier_one_on_ties(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(monkeypatch, 0.8, 0.9, 0.9, 0.7)
    model, states = light_model("cflow"), AfterEveryEpoch()
    train(model, data, tmp_path, states, max_epochs=EPOCHS)
    assert [figures.kept for figures in model.training_course] == [True, True, False, False]
    assert_equal_states(states.model[0], states.training[1])
    assert_equal_states(density_state(model.model), states.training[1])


def test_resumed_training_goes_on_exactly(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the best state is not the training's."""
    judge(monkeypatch, 0.9, 0.8, 0.7, 0.95, 0.6)
    unbroken, resumed = light_model("cflow"), light_model("cflow")
    states, states_of_resumed = AfterEveryEpoch(), AfterEveryEpoch()

    class Copy(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    train(unbroken, data, tmp_path / "unbroken", states, Copy(), max_epochs=4)
    checkpoint = torch.load(tmp_path / "half.ckpt", weights_only=True)
    kept = {name: checkpoint["state_dict"][f"model.{name}"] for name in checkpoint[TRAINING_KEY]}
    assert differ(kept, checkpoint[TRAINING_KEY])
    states_of_resumed.training = states.training[:2]
    train(resumed, data, tmp_path / "resumed", states_of_resumed, max_epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert resumed.training_course == unbroken.training_course
    assert len(states_of_resumed.training) == 4
    for one, other in zip(states_of_resumed.training, states.training, strict=True):
        assert_equal_states(one, other)
    assert_equal_states(density_state(resumed.model), density_state(unbroken.model))


@pytest.mark.parametrize("trainer_settings", [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 5}])
def test_training_without_validation_keeps_the_best_state(
    trainer_settings: dict[str, Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(monkeypatch, *FALLING)
    model = light_model("cflow")
    train(model, data, tmp_path, max_epochs=2, **trainer_settings)
    assert [(figures.epoch, figures.kept) for figures in model.training_course] == [(0, True), (1, False), (2, False)]
    weights = [block.subnet[-1].weight for flow in model.model.flows for block in flow.blocks.module_list]
    assert all(not weight.any() for weight in weights), "as at the start"


def test_checkpoint_within_an_epoch_is_of_the_best_state(data: Path, tmp_path: Path) -> None:
    """Before the first epoch is judged that is the start."""

    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "within.ckpt")
                self.training = density_state(pl_module.model)

    save = Save()
    train(light_model("cflow"), data, tmp_path, save)
    checkpoint = torch.load(tmp_path / "within.ckpt", weights_only=True)
    assert_equal_states(checkpoint[TRAINING_KEY], save.training)
    assert not checkpoint["state_dict"]["model.flows.0.blocks.module_list.0.subnet.2.weight"].any()


def test_validations_within_an_epoch(data: Path, tmp_path: Path) -> None:
    model = light_model("cflow")
    train(model, data, tmp_path, val_check_interval=2)
    assert [figures.epoch for figures in model.training_course] == [0, 0.5, 1]


def test_no_held_out_images_no_criterion(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, states = light_model("cflow", calibration_share=None), AfterEveryEpoch()
    with caplog.at_level(logging.WARNING):
        run = train(model, data, tmp_path, states, max_epochs=2)
    warnings = [record for record in caplog.records if "its last state is kept" in record.message]
    assert len(warnings) == 1
    assert model.training_course == []
    assert TRAINING_KEY not in torch.load(run.trainer.checkpoint_callback.best_model_path, weights_only=True)
    assert differ(states.model[1], states.model[0])
    assert_equal_states(density_state(model.model), states.model[1])


def test_kept_state_is_told(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(monkeypatch, 0.8, 0.9, 0.7)
    with caplog.at_level(logging.INFO, logger="anomalib_hgad"):
        train(light_model("cflow"), data, tmp_path, max_epochs=2)
    assert "Kept the state after epoch 1 of 2: image AUROC 90.0 % and pixel AUROC 90.0 %" in caplog.text
    assert "those of the closed form are 80.0 % and 80.0 %." in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_centers": 3}, "With covariance='full' the mean of a class is its only centre: expected num_centers=1"),
        ({"whiten": False}, "covariance='full' is fitted in closed form.*got whiten=False"),
        ({"prior": "fixed_centers"}, "got whiten=True and prior='fixed_centers'"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        light_model("cflow", **settings)


def test_settings_that_closed_form_ignores_are_named(caplog: pytest.LogCaptureFixture) -> None:
    light_model("linear", lr=1e-3, loss_weights={"inter": 2.0})
    (record,) = (record for record in caplog.records if "ignored" in record.message)
    assert record.message.endswith("ignored: lr=0.001, loss_weights={'inter': 2.0}.")
    caplog.clear()
    light_model("linear")
    light_model("cflow", lr=1e-3)
    assert "ignored" not in caplog.text
