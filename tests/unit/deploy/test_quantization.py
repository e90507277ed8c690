# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""FP16 and INT8 on real images: small, with PyTorch's scores up to rounding, and the mixture in floating point."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.deploy import CompressionType
from anomalib.metrics import F1Score
from openvino import opset13 as ops
from sklearn.metrics import roc_auc_score

from anomalib_hgad import Hgad, MultiClass, UniAd
from anomalib_hgad.data.batch import ClassImageBatch
from anomalib_hgad.deploy.export import CLASS_TENSOR, NOVELTY_TENSOR, PIXELS_TENSOR
from anomalib_hgad.deploy.graph import IN_FLOAT32
from anomalib_hgad.deploy.module_names import modules_of
from anomalib_hgad.deploy.quantization import LARGE_CONSTANT, _measure, _recentred, in_half
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.exports import from_openvino, to_openvino
from tests.helpers.light import LIGHT, LIGHT_FLOW_ARGUMENTS, LIGHT_UNIAD

pytestmark = [pytest.mark.nightly, pytest.mark.slow]


@pytest.fixture(scope="module")
def data(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in ("aws_cookie", "mvtec_transistor"):
        (root / name).symlink_to(shared_data / "data" / name)
    return root


@pytest.fixture(scope="module")
def datamodule(data: Path) -> MultiClass:
    return MultiClass(root=data, train_batch_size=8, eval_batch_size=1, num_workers=0)


@pytest.fixture(scope="module")
def module(shared_data: Path, datamodule: MultiClass, tmp_path_factory: pytest.TempPathFactory) -> Hgad:
    weights = shared_data / "weights/resnet18_timm_stem_l123.safetensors"
    settings = {
        "backbone": "resnet18",
        "backbone_weights": weights,
        "levels": {"layer3": [1.0, 0.5]},
        "image_size": 128,
        "seed": 0,
        "lr": 1e-3,
    }
    # On all positions it has learnt enough after ten epochs that its scores are no matter of rounding.
    module = Hgad(**LIGHT | settings, position_share=1.0)
    run = engine(tmp_path_factory.mktemp("results"), max_epochs=10, check_val_every_n_epoch=10)
    run.fit(module, datamodule=datamodule)
    return module.eval().cpu()


@pytest.fixture(scope="module")
def exported(module: Hgad, datamodule: MultiClass, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All of one ONNX graph: only what OpenVINO makes of it differs."""
    folder = tmp_path_factory.mktemp("exported")
    kinds = {"FP32": None, "FP16": "fp16", "INT8": "int8", "INT8_PTQ": "int8_ptq"}
    graph = module.to_onnx(folder)
    return {
        name: to_openvino(
            module, graph, folder / name, compression_type=kind and CompressionType(kind), datamodule=datamodule
        )
        for name, kind in kinds.items()
    }


def outputs(path: Path, images: list[torch.Tensor]) -> dict[str, np.ndarray]:
    model = from_openvino(path)
    results = [model(image.numpy()) for image in images]
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


@pytest.mark.parametrize(
    ("kind", "largest", "median"),
    [("FP32", 1e-4, 1e-5), ("FP16", 0.1, 0.01), ("INT8", 0.6, 0.05), ("INT8_PTQ", 1.0, 0.2)],
)
def test_scores_are_pytorchs_up_to_rounding(
    exported: dict[str, Path], module: Hgad, datamodule: MultiClass, kind: str, largest: float, median: float
) -> None:
    """Relative to the range of the scores of all test images; and the same class is inferred."""
    samples = datamodule.test_data.samples
    images = [read_image(path, as_tensor=True).unsqueeze(0) for path in samples["image_path"]]
    with torch.no_grad():
        resized = [module.pre_processor.transform(image) for image in images]
        expected = [module.post_processor(module.model(image)) for image in resized]
        classes = [module.model.predict(image)[0].class_posterior.argmax().item() for image in resized]
    actual = outputs(exported[kind], images)
    for name in ("pred_score", "anomaly_map"):
        values = np.concatenate([getattr(prediction, name).numpy() for prediction in expected])
        difference = np.abs(actual[name].reshape(values.shape) - values) / np.ptp(values)
        assert difference.max() <= largest
        assert np.median(difference) <= median
    assert np.mean(actual[CLASS_TENSOR][:, 0] == classes) >= (1 if kind.startswith("FP") else 0.9)
    labels = samples["label_index"].astype(int)
    scores = np.concatenate([prediction.pred_score.numpy() for prediction in expected])
    of_pytorch, of_kind = roc_auc_score(labels, scores), roc_auc_score(labels, actual["pred_score"].ravel())
    assert of_kind >= of_pytorch - 0.05


@pytest.mark.parametrize("kind", ["INT8", "INT8_PTQ"])
def test_files_are_small(exported: dict[str, Path], kind: str) -> None:
    """Weights with a byte instead of four, and the positions' part too."""
    sizes = {name: path.with_suffix(".bin").stat().st_size for name, path in exported.items()}
    assert sizes["FP16"] < 0.55 * sizes["FP32"]
    assert sizes[kind] < 0.3 * sizes["FP32"]
    graph = openvino.Core().read_model(exported[kind])
    large = [
        node
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "Constant"
        and node.get_output_element_type(0) in (openvino.Type.f32, openvino.Type.f16)
        and node.data.size > LARGE_CONSTANT
    ]
    assert [node.data.shape for node in large if node.data.shape[:2] != (2, 10)] == []  # but the classes' centres


def test_backbone_alone_computes_in_bytes(exported: dict[str, Path]) -> None:
    """The second block of the second stage of resnet18, and its third stage, at both sizes of the pyramid."""
    graph = openvino.Core().read_model(exported["INT8_PTQ"])
    products = [node for node in graph.get_ordered_ops() if node.get_type_name() in {"Convolution", "MatMul"}]
    quantised = [node for node in products if "FakeQuantize" in ancestors(node)]
    assert len(quantised) == 2 * (2 + 5)
    assert {node.get_type_name() for node in quantised} == {"Convolution"}
    assert {node.input_value(1).get_shape()[0] for node in quantised} == {128, 256}


def ancestors(node: openvino.Node, position: int = 0) -> set[str]:
    """Types of what feeds an input of a node, the first one by default, through operations that move numbers only."""
    types = set()
    source = node.input_value(position).get_node()
    while source.get_type_name() in {"FakeQuantize", "Reshape", "Transpose", "Convert", "Multiply"}:
        types.add(source.get_type_name())
        source = source.input_value(0).get_node()
    return types


@pytest.mark.parametrize("input_size", [None, (32, 48)], ids=["any size", "one size"])
def test_weights_of_backbone_and_flows_are_quantised_and_no_others(
    input_size: tuple[int, int] | None, tmp_path: Path
) -> None:
    """By the names of the weights, as PyTorch's exporter notes them beside each operation of the ONNX graph."""
    module = Hgad(**LIGHT | {"image_size": (32, 48)}, pre_processor=input_size is None).eval()
    module.set_class_names(["bolt", "gear wheel", "nut"])
    # Centres of trained levels are not the same.
    for prior in module.model.priors:
        prior.class_centers.data.normal_()
    file = module.to_onnx(tmp_path, input_size=input_size)
    notes = {
        node.name: next(entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.fx_node")
        for node in onnx.load(file).graph.node
        if node.op_type in {"Conv", "MatMul"}
    }
    expected = {name: "_model_encoder_" in note or "_model_flows_" in note for name, note in notes.items()}
    graph = openvino.Core().read_model(to_openvino(module, file, tmp_path, compression_type=CompressionType.INT8))
    products = [node for node in graph.get_ordered_ops() if node.get_type_name() in {"Convolution", "MatMul"}]
    actual = {node.get_friendly_name(): "Convert" in ancestors(node, 1) for node in products}
    assert len(actual) == len(expected)
    assert sum(actual.values()) == sum(expected.values())
    # OpenVINO gives convolutions that it has merged with a normalisation other names.
    kept = actual.keys() & expected.keys()
    assert {name for name, said in expected.items() if not said} <= kept
    assert {name: actual[name] for name in kept} == {name: expected[name] for name in kept}


@pytest.mark.parametrize("kind", ["int8", "int8_ptq"])
def test_weights_of_convolutional_flows_are_stored_in_half_precision(kind: str, tmp_path: Path) -> None:
    """And those of the backbone as 8-bit integers."""
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / "data" / name, train=4, good=1, bad=1)
    data = MultiClass(root=tmp_path / "data", num_workers=0)
    light = {"flow": "fastflow", "flow_arguments": LIGHT_FLOW_ARGUMENTS["fastflow"], "image_size": (32, 48)}
    module = Hgad(**LIGHT | light).eval()
    module.set_class_names(["bolt", "nut"])
    set_scale(module)
    path = module.to_openvino(tmp_path, compression_type=CompressionType(kind), datamodule=data)
    graph = openvino.Core().read_model(path)
    modules = modules_of(graph)  # OpenVINO renames convolutions that it has merged with others
    stored = {"model.encoder": set(), "model.flows": set()}
    for node in graph.get_ordered_ops():
        if node.get_type_name() in {"Convolution", "MatMul"} and "Convert" in ancestors(node, 1):
            (room,) = (room for room in stored if modules[node.get_friendly_name()].startswith(room))
            stored[room].add(stored_type(node).get_type_name())
    assert stored["model.flows"] == {"f16"}
    assert stored["model.encoder"] <= {"i8", "u8"}
    assert stored["model.encoder"]


def test_weights_too_large_for_half_precision_stay_as_they_are() -> None:
    image = ops.parameter([1, 2], np.float32)
    products = []
    for name, largest in (("fits", 60000.0), ("too_large", 70000.0)):
        weights = ops.constant(np.array([[largest, 1.0], [0.5, -largest]], dtype=np.float32))
        products.append(ops.matmul(image, weights, transpose_a=False, transpose_b=False))
        products[-1].set_friendly_name(f"model.flows/node_{name}")
    graph = in_half(openvino.Model(products, [image]), ["model.flows"])
    assert [stored_type(node) for node in products] == [openvino.Type.f16, openvino.Type.f32]
    first, second = openvino.compile_model(graph, "CPU", IN_FLOAT32)(np.array([[1.0, 2.0]], dtype=np.float32)).values()
    assert first == pytest.approx(np.array([[60001.0, 1.0 - 120000.0]]), rel=1e-3)
    assert second == pytest.approx(np.array([[70001.0, 1.0 - 140000.0]]))


def stored_type(node: openvino.Node) -> openvino.Type:
    """Type of the constant that the weights of a product come from."""
    source = node.input_value(1).get_node()
    while source.get_type_name() != "Constant":
        source = source.input_value(0).get_node()
    return source.get_output_element_type(0)


def set_scale(module: Hgad) -> None:
    """Put scores between 0 and 1, as a validation does."""
    for name, value in (("min", 0.0), ("max", 2.0), ("threshold", 1.0)):
        setattr(module.post_processor, f"_image_{name}", torch.tensor(value))
        setattr(module.post_processor, f"_pixel_{name}", torch.tensor(value))


class Contented:
    """A metric that finds every model perfect, and remembers the scores that it saw."""

    def __init__(self) -> None:
        self.scores: list[list[float]] = []

    def reset(self) -> None:
        self.scores.append([])

    def update(self, batch: ClassImageBatch) -> None:
        self.scores[-1] += batch.pred_score.tolist()

    def compute(self) -> float:
        return 1.0


def test_accuracy_control_keeps_what_the_metric_allows(tmp_path: Path) -> None:
    """All of it, here; of a model of one class, which has no tensor of classes."""
    trees.mvtec_class(tmp_path / "data/bolt")
    single = Hgad(**LIGHT | {"levels": {"layer2": [1.0]}, "flow_arguments": {"coupling_blocks": 1}}).eval()
    single.set_class_names(["bolt"])
    set_scale(single)
    metric = Contented()
    path = single.to_openvino(
        tmp_path,
        compression_type=CompressionType.INT8_ACQ,
        datamodule=MultiClass(root=tmp_path / "data", num_workers=0),
        metric=metric,
        max_drop=0.1,
    )
    of_all = [scores for scores in metric.scores if len(scores) == max(map(len, metric.scores))]
    assert of_all[0] != of_all[-1], "the quantised model was measured, too"
    graph = openvino.Core().read_model(path)
    assert any(node.get_type_name() == "FakeQuantize" for node in graph.get_ordered_ops())
    model = openvino.compile_model(graph, "CPU", IN_FLOAT32)
    assert np.isfinite(model(np.zeros((1, 3, 40, 40), dtype=np.float32))["pred_score"]).all()


def test_metric_of_pixels_sees_masks_of_the_size_of_the_map() -> None:
    """As in a test, where the pre-processor resizes masks with their images."""
    right = np.zeros((2, 1, 4, 4), dtype=bool)
    right[0, :, :2, 2:] = True
    outputs = {
        "pred_score": np.ones(2, dtype=np.float32),
        "pred_label": np.array([True, False]),
        "anomaly_map": right.astype(np.float32),
        "pred_mask": right,
    }
    masks = torch.from_numpy(right[:, 0].repeat(3, axis=1).repeat(2, axis=2))
    batch = ClassImageBatch(image=torch.zeros(2, 3, 12, 8), gt_mask=masks, gt_label=torch.tensor([True, False]))
    assert _measure(lambda _: outputs, [batch], F1Score(fields=["pred_mask", "gt_mask"]), None) == 1


@pytest.mark.parametrize("kind", [CompressionType.INT8_PTQ, CompressionType.INT8_ACQ])
def test_calibrated_forms_need_data(kind: CompressionType, tmp_path: Path) -> None:
    """Said before the export, not after it."""
    with pytest.raises(
        ValueError, match=rf"must be provided: {kind.name} measures the ranges .* expected a datamodule, got None"
    ):
        Hgad(**LIGHT).to_openvino(tmp_path, compression_type=kind)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("light", [lambda: Hgad(**LIGHT), lambda: UniAd(**LIGHT_UNIAD)], ids=["Hgad", "UniAd"])
@pytest.mark.parametrize("max_drop", [7, -0.1])
def test_drop_that_is_none_is_refused(light: Callable[[], Hgad], max_drop: float, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"max_drop must be between 0 and 1, got {max_drop}\. It is the accepted drop"
    ):
        light().to_openvino(tmp_path, compression_type=CompressionType.INT8_ACQ, datamodule=object(), max_drop=max_drop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mode", "said"),
    [("none", "INT8_ACQ measures the metric on validation images"), ("from_train", "The metric is never above 0")],
)
def test_accuracy_control_needs_validation_images_of_both_kinds(
    mode: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without them no drop of the metric can be measured."""
    trees.mvtec_class(tmp_path / "data/bolt")
    single = Hgad(**LIGHT | {"levels": {"layer2": [1.0]}, "flow_arguments": {"coupling_blocks": 1}}).eval()
    single.set_class_names(["bolt"])
    set_scale(single)
    data = MultiClass(root=tmp_path / "data", num_workers=0, val_split_mode=mode)
    with nullcontext() if mode == "from_train" else pytest.raises(ValueError, match=said):
        single.to_openvino(tmp_path / "made", compression_type=CompressionType.INT8_ACQ, datamodule=data)
    assert mode == "none" or said in caplog.text


@pytest.mark.parametrize("kind", [CompressionType.INT8_PTQ, CompressionType.INT8_ACQ])
def test_calibrated_for_images_of_one_size(
    kind: CompressionType, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And NNCF does not name the operations that it leaves out."""
    monkeypatch.setattr(logging.getLogger("nncf"), "handlers", [caplog.handler])
    trees.mvtec_class(tmp_path / "data/bolt")
    single = Hgad(**LIGHT | {"levels": {"layer2": [1.0]}}).eval()
    single.set_class_names(["bolt"])
    set_scale(single)
    data = MultiClass(root=tmp_path / "data", num_workers=0)
    path = single.to_openvino(tmp_path, compression_type=kind, input_size=(48, 40), datamodule=data, max_drop=1.0)
    model = openvino.compile_model(openvino.Core().read_model(path), "CPU")
    assert model.input(0).get_partial_shape()[2:].to_shape() == [48, 40]
    assert np.isfinite(model(np.zeros((1, 3, 48, 40), dtype=np.float32))["pred_score"]).all()
    assert [record.getMessage() for record in caplog.records if record.name == "nncf"] == []


def graph_of_two_classes(shift: float) -> openvino.Model:
    """Map, its largest pixels and novelty are the mean and this shift; the class is whether the red is bright."""
    image = ops.parameter((1, 3, 4, 4), np.float32)
    mean = ops.add(ops.reduce_mean(image, [1], keep_dims=True), ops.constant(np.float32(shift)))
    largest = ops.topk(ops.reshape(mean, [1, 16], special_zero=False), 3, 1, "max", "none").output(0)
    novelty = ops.add(ops.reduce_mean(image, [1, 2, 3], keep_dims=False), ops.constant(np.float32(shift)))
    red = ops.reduce_mean(ops.gather(image, ops.constant([0]), ops.constant(1)), [2, 3], keep_dims=False)
    inferred = ops.convert(ops.greater(red, ops.constant(np.float32(0.5))), "i64")
    named = {PIXELS_TENSOR: largest, NOVELTY_TENSOR: novelty.output(0), CLASS_TENSOR: inferred.output(0)}
    for name, output in named.items():
        output.tensor.set_names({name})
    score = ops.reduce_mean(largest, [1], keep_dims=False)
    score.output(0).tensor.set_names({"pred_score"})
    # As in Hgad's files, class and novelty are no outputs; a second result keeps them in the graph.
    kept = ops.add(novelty, ops.reduce_sum(ops.convert(inferred, "f32"), [1], keep_dims=False))
    return openvino.Model([ops.result(score), ops.result(kept)], [image])


def test_class_without_images_is_named_and_keeps_its_scores(caplog: pytest.LogCaptureFixture) -> None:
    """No image is of the class with the highest number."""
    dark, bright = (np.full((1, 3, 4, 4), value, dtype=np.float32) for value in (0.2, 0.8))
    graph = _recentred(graph_of_two_classes(0.1), graph_of_two_classes(0.0), [dark, dark], ["bolt", "nut"])
    model = openvino.compile_model(graph, "CPU", IN_FLOAT32)
    assert model(dark)["pred_score"] == pytest.approx([0.2], abs=1e-6)
    assert model(bright)["pred_score"] == pytest.approx([0.9], abs=1e-6)
    assert "None of the images for the calibration shows nut, so that the shift" in caplog.text
    caplog.clear()
    graph = _recentred(graph_of_two_classes(0.1), graph_of_two_classes(0.0), [dark, bright], ["bolt", "nut"])
    assert openvino.compile_model(graph, "CPU", IN_FLOAT32)(bright)["pred_score"] == pytest.approx([0.8], abs=1e-6)
    assert caplog.text == ""
