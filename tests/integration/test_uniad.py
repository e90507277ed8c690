# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""UniAD: loss, maps and scores against NumPy, its training inside anomalib, and its exported files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.deploy import ExportType
from anomalib.engine import Engine
from lightning.pytorch import Callback
from PIL import Image
from torch import nn

from anomalib_hgad import MultiClass, UniAd
from anomalib_hgad.common import backbones
from anomalib_hgad.deploy.graph import IN_FLOAT32
from anomalib_hgad.models.uniad.torch_model import FeatureJitter, UniAdModel
from tests.helpers import trees
from tests.helpers.engines import all_figures, engine
from tests.helpers.light import LIGHT_UNIAD

pytestmark = pytest.mark.usefixtures("seeded")


def light_model(**settings: Any) -> UniAdModel:
    arguments = LIGHT_UNIAD | {"image_size": (32, 40), "grid_size": (4, 5), "neighborhood": (3, 3)} | settings
    return UniAdModel(**arguments).double()


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 40, dtype=torch.float64)


def numpy_bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize the last two axes with aligned corners."""
    for axis, length in zip((-2, -1), size, strict=True):
        old = values.shape[axis]
        places = np.linspace(0, old - 1, length)
        low = np.minimum(np.floor(places).astype(int), max(old - 2, 0))
        high = np.minimum(low + 1, old - 1)
        share = (places - low).reshape((-1, 1) if axis == -2 else (-1,))
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values


def numpy_tokens(model: UniAdModel, batch: torch.Tensor) -> np.ndarray:
    levels = [numpy_bilinear(level.numpy(), (4, 5)) for level in model.encoder(batch)]
    return np.concatenate(levels, axis=1).reshape(len(batch), -1, 20).swapaxes(1, 2)


def test_tokens_are_all_features_on_one_grid() -> None:
    model, batch = light_model(), images()
    np.testing.assert_allclose(model.tokens(batch).numpy(), numpy_tokens(model, batch), atol=1e-10)


def test_loss_is_the_mean_squared_error_from_the_features() -> None:
    model, batch = light_model().eval(), images()
    features = numpy_tokens(model, batch)
    reconstruction = model.reconstruct(torch.from_numpy(features)).detach().numpy()
    assert model.loss(batch).item() == pytest.approx(((reconstruction - features) ** 2).mean())


def test_loss_of_a_copy_is_the_jitter() -> None:
    """The target has no noise: what gives back its noisy input is off by the noise."""
    model, batch = light_model().train(), images(8)
    model.input_projection = model.output_projection = model.transformer = nn.Identity()
    features = numpy_tokens(model, batch)
    deviation = 20 * np.linalg.norm(features, axis=-1) / features.shape[-1]
    assert model.loss(batch).item() == pytest.approx((deviation**2).mean(), rel=0.1)
    assert model.eval().loss(batch).item() == 0


def test_maps_are_norms_and_scores_means_of_a_token() -> None:
    model, batch = light_model().eval(), images(3)
    features = numpy_tokens(model, batch)
    reconstruction = model.reconstruct(torch.from_numpy(features)).detach().numpy()
    distances = np.sqrt(((reconstruction - features) ** 2).sum(axis=-1)).reshape(3, 4, 5)
    maps = numpy_bilinear(distances, (32, 40))
    prediction = model(batch)
    np.testing.assert_allclose(prediction.anomaly_map.numpy()[:, 0], maps, atol=1e-10)
    windows = np.lib.stride_tricks.sliding_window_view(maps, (8, 8), axis=(1, 2))
    np.testing.assert_allclose(prediction.pred_score.numpy(), windows.mean(axis=(3, 4)).max(axis=(1, 2)), atol=1e-10)


def test_jitter_has_the_deviation_of_the_paper() -> None:
    tokens = torch.randn(1, 5, 12, dtype=torch.float64) * torch.arange(1, 6).reshape(1, 5, 1)
    noise = FeatureJitter(scale=20.0)(tokens.expand(20000, -1, -1)) - tokens
    expected = 20 * np.linalg.norm(tokens.numpy(), axis=-1)[0] / 12
    np.testing.assert_allclose(noise.std(dim=(0, 2)).numpy(), expected, rtol=0.01)
    np.testing.assert_allclose(noise.mean(dim=(0, 2)).numpy() / expected, 0, atol=0.01)


def test_jitter_is_drawn_by_image_and_only_in_training() -> None:
    jitter = FeatureJitter(probability=0.25)
    tokens = torch.randn(20000, 2, 3)
    changed = (jitter(tokens) != tokens).flatten(1)
    assert torch.equal(changed.all(dim=1), changed.any(dim=1))
    assert changed.all(dim=1).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert jitter.eval()(tokens) is tokens


def test_default_model_has_the_shapes_of_the_paper() -> None:
    model = UniAdModel(pre_trained=False)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("encoder.") for name in shapes)
    assert shapes["input_projection.weight"] == (256, 24 + 32 + 56 + 160)
    assert shapes["output_projection.weight"] == (272, 256)
    assert shapes["transformer.encoder.3.feedforward.0.weight"] == (1024, 256)
    assert [shapes[f"transformer.decoder.{layer}.queries"] for layer in range(4)] == [(14 * 14, 256)] * 4
    assert not any(".encoder.4." in name or ".decoder.4." in name for name in shapes)
    attention, norm, feedforward = 4 * 256 * 257, 2 * 256, 256 * 1025 + 1024 * 257
    encoder_layer, decoder_layer = (
        attention + 2 * norm + feedforward,
        2 * attention + 3 * norm + feedforward + 196 * 256,
    )
    projections, position = 273 * 256 + 257 * 272, 2 * 14 * 128
    expected = 4 * (encoder_layer + decoder_layer) + projections + position
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == expected
    assert model.score_window == (16, 16)


def test_every_parameter_but_the_backbones_is_trained() -> None:
    model = light_model().train()
    model.loss(images()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (not name.startswith("encoder.")), name


def test_score_does_not_depend_on_the_batch() -> None:
    model, batch = light_model().eval(), images(3)
    alone = torch.cat([model(image.unsqueeze(0)).pred_score for image in batch])
    torch.testing.assert_close(model(batch).pred_score, alone)


class Course(Callback):
    """Keeps learning rates and the loss before and after a training."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.fields: list[Any] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._measure(trainer, pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.fields.append(getattr(batch, "class_index", None))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._measure(trainer, pl_module)

    def _measure(self, trainer: Any, pl_module: Any) -> None:
        pl_module.eval()
        with torch.no_grad():
            batch = torch.stack([item.image for item in trainer.datamodule.train_data])
            self.losses.append(pl_module.model.loss(pl_module.pre_processor.transform(batch)).item())
        pl_module.train()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, UniAd, Course, dict[str, float]]:
    folder = tmp_path_factory.mktemp("uniad")
    for name in ("bolt", "nut"):
        trees.mvtec_class(folder / "data" / name)
    course = Course()
    run = engine(folder, course, max_epochs=10, check_val_every_n_epoch=10)
    model = UniAd(**LIGHT_UNIAD, lr=1e-3, seed=0)
    datamodule = MultiClass(root=folder / "data", train_batch_size=8, num_workers=0)
    run.train(model, datamodule=datamodule)
    return run, model, course, all_figures(run)


@pytest.mark.slow
def test_training_reduces_the_loss(trained: Any) -> None:
    before, after = trained[2].losses
    assert after < 0.9 * before


@pytest.mark.slow
def test_learning_rate_drops_after_most_of_the_training(trained: Any) -> None:
    run, _, course, _ = trained
    assert course.rates == pytest.approx([1e-3] * 8 + [1e-4] * 2)
    assert type(run.trainer.optimizers[0]) is torch.optim.AdamW
    assert run.trainer.optimizers[0].param_groups[0]["weight_decay"] == 1e-4


@pytest.mark.slow
def test_figures_of_every_class(trained: Any) -> None:
    assert {"image_AUROC", "image_AUROC_bolt", "image_AUROC_nut", "pixel_AUROC"} <= set(trained[3])


def test_trains_without_labels_of_classes(tmp_path: Path) -> None:
    trees.mvtec_class(tmp_path / "bolt")
    course = Course()
    engine(tmp_path, course).fit(UniAd(**LIGHT_UNIAD), datamodule=MVTecAD(tmp_path, "bolt", num_workers=0))
    assert course.fields == [None]


@pytest.mark.slow
def test_checkpoint_gives_the_model_back_without_a_download(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model, _, _ = trained
    checkpoint = torch.load(run.best_model_path, weights_only=True)
    checkpoint["hyper_parameters"]["pre_trained"] = True
    torch.save(checkpoint, tmp_path / "model.ckpt")
    extractor = backbones.TimmFeatureExtractor

    def offline(backbone: Any, layers: list[str], pre_trained: bool) -> nn.Module:
        assert not pre_trained
        return extractor(backbone, layers, pre_trained)

    monkeypatch.setattr(backbones, "TimmFeatureExtractor", offline)
    restored = UniAd.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    batch = torch.rand(2, 3, 40, 40)
    expected, prediction = model.eval()(batch), restored(batch)
    torch.testing.assert_close(prediction.anomaly_map, expected.anomaly_map)
    torch.testing.assert_close(prediction.pred_score, expected.pred_score)


@pytest.mark.parametrize("given", [{}, {"max_epochs": 3}])
def test_default_number_of_epochs_is_the_papers(given: dict[str, int], tmp_path: Path) -> None:
    class Stop(Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            assert trainer.max_epochs == given.get("max_epochs", 1000)
            trainer.should_stop = True

    trees.mvtec_class(tmp_path / "data/bolt", train=2)
    run = engine(tmp_path, Stop(), **{"max_epochs": None} | given, limit_train_batches=1)
    run.fit(UniAd(**LIGHT_UNIAD), datamodule=MultiClass(root=tmp_path / "data", num_workers=0))
    assert run.trainer.max_epochs == given.get("max_epochs", 1000)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> tuple[UniAd, list[np.ndarray]]:
    """A model with trained features, and images of several sizes."""
    torch.manual_seed(0)
    settings = LIGHT_UNIAD | {"image_size": (64, 80), "grid_size": (4, 5)}
    settings |= {"backbone": "resnet18", "layers": ["layer2", "layer3"]}
    weights = shared_data / "weights/resnet18_timm_stem_l123.safetensors"
    model = UniAd(**settings, backbone_weights=weights, post_processor=False).eval()
    model.is_trained = True
    folders = [shared_data / "data" / name / "test" for name in ("aws_cookie", "aws_alien", "mvtec_hazelnut")]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.*"))[::20]]
    return model, [np.asarray(Image.open(path).convert("RGB"), np.float32) / 255 for path in paths]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(ExportType.ONNX, marks=pytest.mark.nightly), ExportType.OPENVINO])
def test_exported_file_computes_what_pytorch_computes(real: Any, kind: ExportType, tmp_path: Path) -> None:
    """On photographs, whose resizing is antialiased in training and test; anomalib's own export leaves that out."""
    model, photographs = real
    path = engine(tmp_path).export(model, kind, export_root=tmp_path)
    if kind == ExportType.ONNX:
        session = onnxruntime.InferenceSession(path)
        properties = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    else:
        session = openvino.compile_model(path, "CPU", IN_FLOAT32)
        graph = openvino.Core().read_model(path)
        properties = {"model": graph.get_rt_info(["model_info", "model"]).value}
    assert json.loads(properties["model"]) == "anomalib_hgad.UniAd"
    expected, outputs = [], []
    for photograph in photographs:
        image = photograph.transpose(2, 0, 1)[None]
        if kind == ExportType.ONNX:
            outputs.append(session.run(["pred_score", "anomaly_map"], {"input": image}))
        else:
            result = session(image)
            outputs.append([result["pred_score"], result["anomaly_map"]])
        prediction = model.model(model.pre_processor.transform(torch.from_numpy(image)))
        expected.append([prediction.pred_score.numpy(), prediction.anomaly_map.numpy()])
    for output in (0, 1):
        values, references = (np.stack([row[output] for row in rows]) for rows in (outputs, expected))
        assert values.shape == references.shape
        assert np.abs(values - references).max() < 1e-4 * np.ptp(references)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": 18, "num_heads": 4}, "divided among the heads, got 18 for 4 heads"),
        ({"hidden_dim": 9, "num_heads": 3}, "expected an even size, got 9"),
        ({"encoder_layers": 0}, "expected 0 < encoder_layers < inf, got 0"),
        ({"neighborhood": 2}, r"expected odd sizes, got \(2, 2\)"),
        ({"neighborhood": 7}, "nothing to attend to. Use a smaller neighborhood or a larger grid"),
        ({"grid_size": 0}, "expected 0 < height of grid_size < inf, got 0"),
        ({"image_size": (32, -1)}, "expected 0 < width of image_size < inf, got -1"),
        ({"dropout": 1.0}, "dropout is out of range: expected 0 <= dropout < 1, got 1.0"),
        ({"jitter_scale": -1.0}, "expected 0 <= jitter_scale < inf, got -1.0"),
        ({"lr": 0.0}, "expected 0 < lr < inf, got 0.0"),
        ({"lr_drop_start": 80.0}, "expected 0 <= lr_drop_start < 1, got 80.0"),
        ({"layers": []}, r"at least one layer, and every layer once; got layers=\[\]"),
        ({"layers": ["layer2", "layer2"]}, r"every layer once; got layers=\['layer2', 'layer2'\]"),
        ({"layers": ["blocks.4"]}, "test_resnet has no layer 'blocks.4'. Available: "),
        ({"backbone": "resnet19"}, "timm has no model 'resnet19'"),
    ],
)
def test_settings_out_of_range_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UniAd(**LIGHT_UNIAD | settings)
