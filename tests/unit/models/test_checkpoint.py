# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of what checkpoints say, and of those that cannot be read."""

from __future__ import annotations

import functools
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from anomalib.deploy import ExportType
from anomalib.metrics import AUPRO, Evaluator
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import CenterCrop, Compose, Resize, Transform

from anomalib_hgad import Hgad, MultiClass, UniAd
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

pytestmark = pytest.mark.slow


@pytest.fixture(params=["Hgad", "UniAd"])
def model(request: pytest.FixtureRequest) -> Hgad | UniAd:
    return Hgad(**LIGHT) if request.param == "Hgad" else UniAd(**LIGHT_UNIAD)


@pytest.fixture
def checkpoint(model: Hgad | UniAd) -> dict[str, Any]:
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    return content


def test_classes_come_back() -> None:
    model, other = Hgad(**LIGHT), Hgad(**LIGHT)
    model.set_class_names(["bolt", "nut"])
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    other.on_load_checkpoint(content)
    assert other.class_names == ["bolt", "nut"]
    assert other.model.num_classes == 2


def test_versions_of_the_same_minor_release_are_read(model: Hgad | UniAd, checkpoint: dict[str, Any]) -> None:
    major, minor = version("anomalib").split(".")[:2]
    checkpoint["hgad_versions"]["anomalib"] = f"{major}.{minor}.999"
    model.on_load_checkpoint(checkpoint)


@pytest.mark.parametrize(("package", "other"), [("anomalib-hgad", "0.99.0"), ("anomalib", "1.2.0")])
def test_other_versions_are_named(model: Hgad | UniAd, checkpoint: dict[str, Any], package: str, other: str) -> None:
    checkpoint["hgad_versions"][package] = other
    message = f"made with .*{package} {other}.*; installed are .*{package} {version(package)}.*install the versions"
    with pytest.raises(ValueError, match=message):
        model.on_load_checkpoint(checkpoint)


def loaded(kind: type[Hgad | UniAd], trained: dict[str, Any], here: dict[str, Any]) -> Hgad | UniAd:
    """A model with some settings that has loaded what one with others has saved."""
    made = kind(**trained)
    content: dict[str, Any] = {"state_dict": made.state_dict(), "hyper_parameters": dict(made.hparams)}
    made.on_save_checkpoint(content)
    model = kind(**here)
    model.on_load_checkpoint(content)
    return model


CLOSED_FORM = {"flow": "linear", "flow_arguments": None, "covariance": "full", "score": "contrast"}
"""Of the closed form."""

OTHER_SETTINGS = [
    (Hgad, {"backbone": "resnet34"}, "backbone='test_resnet' in the checkpoint and 'resnet34' in the model"),
    (Hgad, {"levels": {"layer2": [1.0, 0.75]}}, r"levels=.*0\.5\)\] in the checkpoint and .*0\.75\)\] in the model"),
    (Hgad, {"levels": {"layer2": [0.5, 1.0]}}, "levels="),
    (Hgad, {"levels": {"layer1": [1.0, 0.5]}}, "levels="),
    (Hgad, {"neighborhood": 3}, "neighborhood=1 in the checkpoint and 3 in the model"),
    (Hgad, {"image_size": 33}, r"image_size=\(32, 32\) in the checkpoint and \(33, 33\) in the model"),
    (Hgad, {"image_size": (32, 40)}, r"image_size=\(32, 32\) in the checkpoint and \(32, 40\) in the model"),
    (Hgad, {"num_centers": 3}, "num_centers=10 in the checkpoint and 3 in the model"),
    (Hgad, {"flow": "fastflow", "flow_arguments": None}, "flow='cflow' in the checkpoint and 'fastflow' in the model"),
    (
        Hgad,
        {"flow_arguments": LIGHT["flow_arguments"] | {"clamp_alpha": 1.2}},
        "'clamp_alpha': 1.9.* in the checkpoint .*: 1.2",
    ),
    (Hgad, {"whiten": False}, "whiten=True in the checkpoint and False in the model"),
    (Hgad, {"feature_dim": 64}, "feature_dim=None in the checkpoint and 64 in the model"),
    (Hgad, {"prior": "fixed_centers"}, "prior='hierarchical' in the checkpoint and 'fixed_centers' in the model"),
    (Hgad, {"prior": "single_gaussian"}, "prior='hierarchical' in the checkpoint and 'single_gaussian' in the model"),
    (Hgad, {"covariance": "full"}, "covariance='identity' in the checkpoint and 'full' in the model"),
    (Hgad, {"score": "product"}, "score='sum' in the checkpoint and 'product' in the model"),
    (Hgad, {"score_share": 0.1}, "score_share=0.0 in the checkpoint and 0.1 in the model"),
    (Hgad, {"class_source": "given"}, "class_source='inferred' in the checkpoint and 'given' in the model"),
    (Hgad, {"calibration_share": None}, "calibration_share='a share' in the checkpoint and None in the model"),
    (UniAd, {"backbone": "resnet34"}, "backbone='test_resnet' in the checkpoint and 'resnet34' in the model"),
    (UniAd, {"layers": ["layer1", "layer3"]}, "levels="),
    (UniAd, {"image_size": 33}, r"image_size=\(32, 32\) in the checkpoint and \(33, 33\) in the model"),
    (UniAd, {"grid_size": (5, 4)}, r"grid_size=\(4, 4\) in the checkpoint and \(5, 4\) in the model"),
    (UniAd, {"hidden_dim": 32}, "hidden_dim=16 in the checkpoint and 32 in the model"),
    (UniAd, {"encoder_layers": 2}, "encoder_layers=1 in the checkpoint and 2 in the model"),
    (UniAd, {"decoder_layers": 1}, "decoder_layers=2 in the checkpoint and 1 in the model"),
    (UniAd, {"num_heads": 4}, "num_heads=2 in the checkpoint and 4 in the model"),
    (UniAd, {"feedforward_dim": 8}, "feedforward_dim=16 in the checkpoint and 8 in the model"),
    (UniAd, {"neighborhood": (3, 1)}, r"neighborhood=\(3, 3\) in the checkpoint and \(3, 1\) in the model"),
    *(
        (
            kind,
            {"pre_processor": PreProcessor(Resize((32, 32)))},
            r"pre_processor='.*Normalize.*' in the checkpoint and 'Resize",
        )
        for kind in (Hgad, UniAd)
    ),
    *(
        (kind, {"pre_processor": False}, r"pre_processor='.*' in the checkpoint and False in the model")
        for kind in (Hgad, UniAd)
    ),
    *(
        (kind, {"post_processor": False}, "post_processor=True in the checkpoint and False in the model")
        for kind in (Hgad, UniAd)
    ),
]
"""Models and, in place of those that they were trained with, settings of other scores."""

LIGHT_SETTINGS: dict[type, dict[str, Any]] = {Hgad: LIGHT, UniAd: LIGHT_UNIAD}

SAME_SCORES = {
    *("pre_trained", "backbone_weights", "seed"),  # the checkpoint's weights take the place of those at the start
    *("loss_weights", "position_share", "lr", "training_arguments", "feature_cache"),
    *("dropout", "jitter_scale", "jitter_probability", "weight_decay", "lr_drop_start", "lr_drop_factor"),
    *("evaluator", "visualizer"),
    "num_classes",  # classes are the checkpoint's
}
"""Settings that say how weights come about, or what is done with scores."""


@functools.cache
def made(kind: type[Hgad | UniAd]) -> dict[str, Any]:
    """What a light model saves."""
    model = kind(**LIGHT_SETTINGS[kind])
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    return content


@pytest.mark.parametrize(
    ("kind", "here", "message"), OTHER_SETTINGS, ids=lambda value: "-".join(value) if isinstance(value, dict) else None
)
def test_settings_that_scores_depend_on_are_compared(
    kind: type[Hgad | UniAd], here: dict[str, Any], message: str
) -> None:
    model = kind(**LIGHT_SETTINGS[kind] | here)
    with pytest.raises(ValueError, match=rf"other settings that scores depend on: .*{message}.* Give the"):
        model.on_load_checkpoint(made(kind))


@pytest.mark.parametrize("kind", [Hgad, UniAd])
def test_every_setting_is_compared_or_of_no_score(kind: type[Hgad | UniAd]) -> None:
    compared = {name for of, here, _ in OTHER_SETTINGS if of is kind for name in here}
    assert not compared & SAME_SCORES
    assert inspect.signature(kind).parameters.keys() <= compared | SAME_SCORES


@pytest.mark.parametrize(
    ("trained", "here"),
    [
        ({"image_size": 32}, {"image_size": (32, 32)}),
        ({"image_size": 32}, {"image_size": [32, 32]}),
        ({"levels": {"layer2": [1.0, 0.5]}}, {"levels": {"layer2": (1, 0.5)}}),
        ({"levels": {"layer3": [1.0], "layer2": [1.0]}}, {"levels": {"layer2": [1.0], "layer3": [1.0]}}),
        ({"num_centers": None}, {"num_centers": 10}),
        ({"flow_arguments": {"condition_dim": 16}}, {"flow_arguments": {"condition_dim": 16, "coupling_blocks": 12}}),
        (
            {"flow": "fastflow", "flow_arguments": {"coupling_blocks": 2, "kernel_sizes": [3, 1]}},
            {"flow": "fastflow", "flow_arguments": {"coupling_blocks": 2, "kernel_sizes": (3, 1)}},
        ),
        (CLOSED_FORM | {"calibration_share": 0.1}, CLOSED_FORM | {"calibration_share": 0.2, "seed": 3}),
        ({"lr": 1e-3}, {"lr": 1e-4, "position_share": 0.5, "feature_cache": False}),
    ],
)
def test_settings_of_the_same_scores_are_read(trained: dict[str, Any], here: dict[str, Any]) -> None:
    loaded(Hgad, LIGHT | trained, LIGHT | here)


class Darker(Transform):
    """A transform that anomalib cannot keep in a checkpoint."""

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        del params
        return inpt / 2


@pytest.mark.parametrize(("kind", "settings"), [(Hgad, LIGHT), (UniAd, LIGHT_UNIAD)])
def test_transform_that_no_checkpoint_keeps_must_be_given_again(
    kind: type[Hgad | UniAd], settings: dict[str, Any]
) -> None:
    """anomalib keeps those of a list alone, and loads a model without any in its place."""
    darker = [settings | {"pre_processor": PreProcessor(Compose([Resize((32, 32)), Darker()]))} for _ in range(2)]
    model = loaded(kind, darker[0], darker[1])
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.pre_processor.transform(images), images / 2)
    assert torch.equal(model.pre_processor(images), images / 2)
    with pytest.raises(ValueError, match=r"pre_processor='Compose\( Resize.*Darker.*' in the checkpoint and 'Compose"):
        loaded(kind, darker[0], settings)


def test_components_of_the_checkpoint_are_taken_where_none_were_given() -> None:
    cropping = PreProcessor(Compose([Resize((64, 64)), CenterCrop(32)]))
    model = loaded(Hgad, LIGHT | {"pre_processor": cropping, "post_processor": False}, LIGHT)
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(model.pre_processor.transform(images), images[..., 16:48, 16:48])
    assert model.post_processor is None
    assert loaded(Hgad, LIGHT | {"pre_processor": False}, LIGHT).pre_processor is None


def test_trainer_that_pre_processes_what_the_training_did_not(tmp_path: Path) -> None:
    """It keeps the callbacks that it has seen before the checkpoint: anomalib takes them from the model alone."""
    data = trees.mvtec_class(tmp_path / "data/bolt").parent
    settings = LIGHT | CLOSED_FORM | {"levels": {"layer2": [1.0]}}
    resized = MultiClass(root=data, num_workers=0, augmentations=Resize((32, 32)))
    run = engine(tmp_path)
    run.fit(Hgad(**settings, pre_processor=False, post_processor=False), datamodule=resized)
    for here, message in (
        ({"post_processor": False}, "pre_processor=False in the checkpoint and '.*' in the model"),
        ({"pre_processor": False}, "post_processor=False in the checkpoint and True in the model"),
    ):
        with pytest.raises(ValueError, match=message):
            engine(tmp_path).test(Hgad(**settings, **here), datamodule=resized, ckpt_path=run.best_model_path)


def test_checkpoint_that_does_not_say_is_refused(model: Hgad | UniAd, checkpoint: dict[str, Any]) -> None:
    del checkpoint["hgad_versions"]
    with pytest.raises(ValueError, match="lacks the versions and settings of one"):
        model.on_load_checkpoint(checkpoint)


def test_checkpoint_that_says_half_is_refused(model: Hgad | UniAd, checkpoint: dict[str, Any]) -> None:
    del checkpoint["hgad_versions"]["anomalib-hgad"]
    with pytest.raises(ValueError, match=r"made with anomalib-hgad 0\.0 \(unknown\) and anomalib 2"):
        model.on_load_checkpoint(checkpoint)


def test_checkpoint_of_another_model_is_refused(model: Hgad | UniAd) -> None:
    message = "this one is of another model" if isinstance(model, Hgad) else "this one .* may be of another model"
    with pytest.raises(ValueError, match=message):
        model.on_load_checkpoint({"state_dict": {}})


@pytest.mark.parametrize(("kind", "settings"), [(Hgad, LIGHT), (UniAd, LIGHT_UNIAD)])
def test_checkpoint_of_other_metrics_is_read(kind: type[Hgad | UniAd], settings: dict[str, Any]) -> None:
    """AUPRO has a constant among the weights, under its number among the metrics."""
    metrics = [AUPRO(fields=["anomaly_map", "gt_mask"])]
    trained, other = kind(**settings, evaluator=Evaluator(test_metrics=metrics)), kind(**settings)
    content: dict[str, Any] = {"state_dict": trained.state_dict()}
    trained.on_save_checkpoint(content)
    assert content["state_dict"].keys() != other.state_dict().keys()
    other.on_load_checkpoint(content)
    other.load_state_dict(content["state_dict"])
    for name, weight in trained.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], weight, equal_nan=True, msg=name)


@pytest.mark.nightly
def test_checkpoint_of_a_gpu_is_read_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And exports. The file says of its tensors that they were on a GPU."""
    # Other scores saturate on images that are as unlike the training's as noise is.
    settings = LIGHT | {"score": "standardized"}
    data = trees.mvtec_class(tmp_path / "data/bolt").parent
    run = engine(tmp_path / "results")
    model = Hgad(**settings)
    run.fit(model, datamodule=MultiClass(root=data, num_workers=0))
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    run.trainer.save_checkpoint(tmp_path / "gpu.ckpt")
    monkeypatch.undo()
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="deserialize object on a CUDA device"):
            torch.load(tmp_path / "gpu.ckpt", weights_only=True)
    path = engine(tmp_path).export(
        Hgad(**settings), ExportType.ONNX, export_root=tmp_path, ckpt_path=tmp_path / "gpu.ckpt"
    )
    images = torch.rand(1, 3, 32, 32)
    outputs = onnxruntime.InferenceSession(path).run(["pred_score"], {"input": images.numpy()})
    assert outputs[0].item() == pytest.approx(model.eval().cpu()(images).pred_score.item(), abs=1e-4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.mvtec_class(tmp_path_factory.mktemp("data") / "bolt").parent


def never_trained(kind: type[Hgad | UniAd], how: str, data: MultiClass, folder: Path) -> Hgad | UniAd:
    model = kind(**LIGHT_SETTINGS[kind], visualizer=False)
    run = engine(folder, **{"no epoch": {"max_epochs": 0}, "no step": {"limit_train_batches": 0}}.get(how, {}))
    if how != "as it starts":
        run.fit(model, datamodule=data)
    if how == "no epoch":
        run.trainer.save_checkpoint(folder / "empty.ckpt")
        model = kind.load_from_checkpoint(folder / "empty.ckpt")
    return model


@pytest.mark.parametrize("how", ["as it starts", "no epoch", "no step"])
@pytest.mark.parametrize("kind", [Hgad, UniAd])
def test_model_that_was_never_trained_scores_nothing(
    kind: type[Hgad | UniAd], how: str, root: Path, tmp_path: Path
) -> None:
    data = MultiClass(root=root, num_workers=0)
    model = never_trained(kind, how, data, tmp_path)
    for use in (
        lambda: engine(tmp_path).validate(model, datamodule=data),
        lambda: engine(tmp_path).test(model, datamodule=data),
        lambda: engine(tmp_path).predict(model, datamodule=data),
        lambda: engine(tmp_path).predict(model, data_path=root / "bolt/test/good"),
        *(lambda form=form: engine(tmp_path).export(model, form, export_root=tmp_path / "made") for form in ExportType),
    ):
        with pytest.raises(ValueError, match=r"The model was not trained: .* Give a checkpoint \(--ckpt_path, .*epoch"):
            use()
    assert not (tmp_path / "made").exists()
