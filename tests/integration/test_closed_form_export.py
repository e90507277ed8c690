# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Exports of a model of contrasts that was fitted in one pass to real images: they compute what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.deploy import CompressionType, OpenVINOInferencer

from anomalib_hgad import ClassOpenVINOInferencer, Hgad, MultiClass
from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.deploy.export import CLASS_TENSOR, NOVELTY_TENSOR, PIXELS_TENSOR
from anomalib_hgad.deploy.graph import IN_FLOAT32
from tests.helpers.engines import engine
from tests.helpers.exports import Outputs, Predict, from_onnx, from_openvino, in_bfloat16, to_openvino
from tests.helpers.light import LIGHT

pytestmark = pytest.mark.slow

SIZE = 128
CLASSES = ["aitex_03", "aws_cookie", "mvtec_hazelnut", "mvtec_transistor"]
UNKNOWN_CLASS = "aws_alien"
SHARES = pytest.mark.parametrize("share", [pytest.param(0.0, marks=pytest.mark.nightly), 0.02])


class Made(dict[float, Any]):
    """Values that are made when they are asked for first."""

    def __init__(self, make: Callable[[float], Any]) -> None:
        self.make = make

    def __missing__(self, share: float) -> Any:
        self[share] = self.make(share)
        return self[share]


@pytest.fixture(scope="module")
def datamodule(few_shared: Path) -> MultiClass:
    """Four classes, so that there are classes that are no rivals."""
    data = MultiClass(
        root=few_shared / "data", categories=CLASSES, train_batch_size=8, eval_batch_size=4, num_workers=0
    )
    data.setup()
    return data


@pytest.fixture(scope="module")
def modules(few_shared: Path, datamodule: MultiClass, tmp_path_factory: pytest.TempPathFactory) -> dict[float, Hgad]:
    """By the share of the pixels that score an image; that of some has its whitening folded into its Gaussians."""

    def make(share: float) -> Hgad:
        settings = {
            "backbone": "resnet18",
            "backbone_weights": few_shared / "weights/resnet18_timm_stem_l123.safetensors",
            "levels": {"layer2": [1.0], "layer3": [1.0, 0.5]},
            "neighborhood": 3,
            "image_size": SIZE,
            "flow": "linear",
            "flow_arguments": None,
            "feature_dim": None if share else 48,
            "covariance": "full",
            "score": "contrast",
            "score_share": share,
            "calibration_share": 0.3,
            "seed": 0,
        }
        module = Hgad(**LIGHT | settings)
        engine(tmp_path_factory.mktemp("results")).fit(module, datamodule=datamodule)
        return module.eval()

    return Made(make)


@pytest.fixture(scope="module")
def images(datamodule: MultiClass) -> list[torch.Tensor]:
    """Test images of all classes, of the sizes that they have."""
    paths = datamodule.test_data.samples["image_path"][::2]
    return [read_image(path, as_tensor=True).unsqueeze(0) for path in paths]


@pytest.fixture(scope="module")
def graphs(modules: dict[float, Hgad], tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    return Made(lambda share: modules[share].to_onnx(tmp_path_factory.mktemp("onnx")))


@torch.no_grad()
def expected(module: Hgad, image: torch.Tensor) -> Outputs:
    """What a test makes of an image, its class and novelty, and the largest pixels of its map before any scale."""
    resized = module.pre_processor.transform(image)
    model = module.model
    prediction, _ = model.predict(resized)
    y = prediction.class_posterior.argmax(dim=-1)
    levels = model.level_scores(model.read(model.encoder(resized)), y)
    pixels = model.raw_scores(levels, y, resized.shape[-2:])[1].flatten().numpy()
    count = max(1, round(model.score_share * pixels.size))
    outputs = {name: value.numpy() for name, value in module.post_processor(model(resized))._asdict().items()}
    outputs |= {NOVELTY_TENSOR: prediction.novelty.numpy()}
    return outputs | {CLASS_TENSOR: y.numpy(), PIXELS_TENSOR: np.sort(pixels)[::-1][:count]}


def differences(module: Hgad, predict: Predict, images: list[torch.Tensor]) -> dict[str, np.ndarray]:
    """Largest difference of an image, relative to the range of all images; and whether the class is another."""
    pairs = [(predict(image.numpy()), expected(module, image)) for image in images]
    found = {
        CLASS_TENSOR: np.array(
            [int(ours[CLASS_TENSOR].item() != theirs[CLASS_TENSOR].item()) for ours, theirs in pairs]
        )
    }
    for name in ("pred_score", "anomaly_map", NOVELTY_TENSOR):
        span = np.ptp(np.concatenate([theirs[name].ravel() for _, theirs in pairs]))
        found[name] = np.array(
            [np.abs(ours[name].ravel() - theirs[name].ravel()).max() / span for ours, theirs in pairs]
        )
    return found


@SHARES
def test_onnx_computes_what_pytorch_computes(
    share: float, modules: dict[float, Hgad], graphs: dict[float, Path], images: list[torch.Tensor]
) -> None:
    found = differences(modules[share], from_onnx(graphs[share]), images)
    assert not found[CLASS_TENSOR].any()
    assert found["pred_score"].max() < 1e-4
    assert found["anomaly_map"].max() < 1e-4
    assert found[NOVELTY_TENSOR].max() < 1e-4


@SHARES
def test_openvino_computes_what_pytorch_computes(
    share: float, modules: dict[float, Hgad], graphs: dict[float, Path], images: list[torch.Tensor], tmp_path: Path
) -> None:
    path = to_openvino(modules[share], graphs[share], tmp_path)
    found = differences(modules[share], from_openvino(path), images)
    assert not found[CLASS_TENSOR].any()
    assert found["pred_score"].max() < 1e-4
    assert found["anomaly_map"].max() < 1e-4
    assert found[NOVELTY_TENSOR].max() < 1e-4


@pytest.mark.nightly
@pytest.mark.parametrize("kind", [None, "FP16", "INT8"])
def test_stock_inferencer_computes_it_without_a_setting(
    kind: str | None,
    modules: dict[float, Hgad],
    graphs: dict[float, Path],
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On all real test images, those of a class that the model does not know among them.

    Where the processor has BF16 among its ``OPTIMIZATION_CAPABILITIES``, OpenVINO would choose that.

    A file in INT8 computes what it computes in float32.
    """
    module = modules[0.02]
    monkeypatch.chdir(tmp_path)  # anomalib's leaves a cache where it is
    path = to_openvino(module, graphs[0.02], tmp_path, compression_type=kind and CompressionType[kind])
    assert in_bfloat16(path) == []
    stock, in_float32 = OpenVINOInferencer(path), from_openvino(path)
    images = sorted(path for path in (shared_data / "data").glob("*/test/*/*") if path.suffix in {".jpg", ".png"})
    assert len(images) == 258
    for image in images:
        ours = stock.predict(image)
        pixels = read_image(str(image), as_tensor=True).unsqueeze(0)
        theirs = in_float32(pixels.numpy()) if kind == "INT8" else expected(module, pixels)
        np.testing.assert_allclose(ours.pred_score.item(), theirs["pred_score"].item(), rtol=0, atol=2e-2)
        # The threshold is the score of an image, which rounding may take to its other side; FP16 rounds weights.
        if abs(theirs["pred_score"].item() - 0.5) > (1e-2 if kind == "FP16" else 1e-4):
            assert bool(ours.pred_label.item()) == bool(theirs["pred_label"].item()), image


@SHARES
def test_named_tensors_are_the_class_and_the_pixels_of_the_score(
    share: float, modules: dict[float, Hgad], graphs: dict[float, Path], images: list[torch.Tensor]
) -> None:
    """As further outputs of the ONNX graph, of a batch too."""
    tensors = ((CLASS_TENSOR, onnx.TensorProto.INT64), (PIXELS_TENSOR, onnx.TensorProto.FLOAT))
    predict = from_onnx(graphs[share], tensors)
    of_one_size = [image for image in images if image.shape == images[0].shape]
    outputs = predict(torch.cat(of_one_size).numpy())
    count = max(1, round(share * SIZE * SIZE))
    assert outputs[CLASS_TENSOR].shape == (len(of_one_size), 1)
    assert outputs[PIXELS_TENSOR].shape == (len(of_one_size), count)
    for row, image in enumerate(of_one_size):
        theirs = expected(modules[share], image)
        assert outputs[CLASS_TENSOR][row].item() == theirs[CLASS_TENSOR].item()
        np.testing.assert_allclose(outputs[PIXELS_TENSOR][row], theirs[PIXELS_TENSOR], rtol=1e-3, atol=1e-3)


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "largest", "median"), [("INT8", 0.06, 0.02), ("INT8_PTQ", 0.4, 0.05)])
def test_int8_keeps_classes_and_scores(
    kind: str,
    largest: float,
    median: float,
    modules: dict[float, Hgad],
    graphs: dict[float, Path],
    few_shared: Path,
    datamodule: MultiClass,
    tmp_path: Path,
) -> None:
    """The densities of the candidates, which are products with gathered covariances, stay in floating point."""
    settings = {"compression_type": CompressionType[kind], "datamodule": datamodule}
    path = to_openvino(modules[0.02], graphs[0.02], tmp_path, **settings)
    every = [read_image(image, as_tensor=True).unsqueeze(0) for image in datamodule.test_data.samples["image_path"]]
    found = differences(modules[0.02], from_openvino(path), every)
    assert found[CLASS_TENSOR].mean() <= 0.05
    for name, factor in (("pred_score", 1), ("anomaly_map", 1), (NOVELTY_TENSOR, 2)):
        assert found[name].max() < factor * largest, name
        assert np.median(found[name]) < factor * median, name
    graph = openvino.Core().read_model(path)
    quantised = [node.get_friendly_name() for node in graph.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    assert bool(quantised) == (kind == "INT8_PTQ")
    assert openvino.compile_model(graph, "CPU", IN_FLOAT32)
    assert_unknown_products_are_told(path, few_shared, datamodule)


@pytest.mark.parametrize("kind", [None, pytest.param("FP16", marks=pytest.mark.nightly)])
def test_unknown_products_are_told(
    kind: str | None,
    modules: dict[float, Hgad],
    graphs: dict[float, Path],
    few_shared: Path,
    datamodule: MultiClass,
    tmp_path: Path,
) -> None:
    path = to_openvino(modules[0.02], graphs[0.02], tmp_path, compression_type=kind and CompressionType[kind])
    assert_unknown_products_are_told(path, few_shared, datamodule)


def assert_unknown_products_are_told(path: Path, few_shared: Path, datamodule: MultiClass) -> None:
    """Images of a class that was not trained on, and no normal ones of those that were."""
    inferencer = ClassOpenVINOInferencer(path)
    unknown = sorted((few_shared / "data" / UNKNOWN_CLASS).rglob("*.*"))
    assert {name for image in unknown for name in inferencer.predict(image).pred_class_name} == {UNKNOWN}
    normal = datamodule.test_data.samples.query("label_index == 0")
    names = [name for image in normal["image_path"] for name in inferencer.predict(image).pred_class_name]
    assert names == normal["class_name"].tolist()
