# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of exported files: that they compute what PyTorch computes, and say what they are."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import CenterCrop, Compose, Resize

from anomalib_hgad import Hgad, UniAd
from anomalib_hgad.deploy.export import CLASS_TENSOR, NOVELTY_TENSOR
from anomalib_hgad.deploy.graph import IN_FLOAT32
from anomalib_hgad.models.hgad.flows.conditional import ConditionalFlow, FoldedFlow
from tests.helpers.exports import Outputs, from_onnx, from_openvino
from tests.helpers.light import LIGHT, LIGHT_UNIAD
from tests.helpers.light_run import CLASSES, LightRun

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("seeded")]

ONE_LEVEL = LIGHT | {"levels": {"layer2": [1.0]}, "flow_arguments": {"coupling_blocks": 1, "condition_dim": 16}}


@pytest.fixture
def module(light_run: LightRun) -> Hgad:
    return light_run.model


@pytest.fixture
def exported(light_run: LightRun) -> dict[str, Path]:
    return {"onnx": light_run.run.exports[".onnx"], "openvino": light_run.run.exports[".xml"]}


def as_in_a_test(module: Hgad, images: torch.Tensor) -> InferenceBatch:
    """What the callbacks and steps of a test make of images."""
    return module.post_processor(module.model(module.pre_processor.transform(images)))


def test_plain_onnxruntime_computes_it_too(exported: dict[str, Path], module: Hgad) -> None:
    images = torch.rand(3, 3, 60, 50)
    session = onnxruntime.InferenceSession(exported["onnx"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"input": images.numpy()}), strict=True))
    expected = as_in_a_test(module, images)
    assert set(names) == {"pred_score", "pred_label", "anomaly_map", "pred_mask"}
    for name in names:
        np.testing.assert_allclose(outputs[name], getattr(expected, name).numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize("shape", [(1, 3, 32, 48), (2, 3, 60, 50), (5, 3, 21, 100)])
def test_graph_computes_what_pytorch_computes(
    exported: dict[str, Path], module: Hgad, kind: str, shape: tuple[int, ...]
) -> None:
    """Batches and images of any size; the class is the one that the model infers."""
    images = torch.rand(*shape)
    outputs = from_openvino(exported[kind])(images.numpy())
    assert_computes_what_pytorch_computes(outputs, module, images)


def assert_computes_what_pytorch_computes(outputs: Outputs, module: Hgad, images: torch.Tensor) -> None:
    with torch.no_grad():
        expected = as_in_a_test(module, images)
        prediction, _ = module.model.predict(module.pre_processor.transform(images))
    for name, value in expected._asdict().items():
        np.testing.assert_allclose(outputs[name], value.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
    assert outputs[CLASS_TENSOR][:, 0].tolist() == prediction.class_posterior.argmax(dim=-1).tolist()
    assert_novelty(outputs[NOVELTY_TENSOR], prediction.novelty)


def assert_novelty(actual: np.ndarray, expected: torch.Tensor) -> None:
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-3, atol=1e-4)


def test_novelty_is_in_the_graph_of_plain_onnxruntime(exported: dict[str, Path], module: Hgad) -> None:
    """At its default optimizations."""
    images = torch.rand(3, 3, 60, 50)
    outputs = from_onnx(exported["onnx"])(images.numpy())
    assert_novelty(outputs[NOVELTY_TENSOR], module.model.predict(module.pre_processor.transform(images))[0].novelty)


@torch.no_grad()
def test_no_score_without_a_novelty(module: Hgad) -> None:
    """Else the scores are those of the prediction, bit by bit."""
    images = torch.rand(3, 3, 32, 48)
    expected = module.model.predict(images)[0].pred_score
    assert torch.equal(module.model(images).pred_score, expected)
    without = deepcopy(module.model)
    without.novelty.location.fill_(torch.nan)
    assert without(images).pred_score.isnan().all()


def test_files_say_what_they_are(exported: dict[str, Path], module: Hgad) -> None:
    properties = {
        entry.key: entry.value for entry in onnx.load(exported["onnx"], load_external_data=False).metadata_props
    }
    graph = openvino.Core().read_model(exported["openvino"])
    information = {name: graph.get_rt_info(["model_info", name]).value for name in properties}
    for said in (properties, information):
        entries = {name: json.loads(value) for name, value in said.items()}
        assert entries["class_names"] == CLASSES
        assert entries["class_tensor"] == CLASS_TENSOR
        assert entries["novelty_tensor"] == NOVELTY_TENSOR
        assert entries["novelty_limit"] == 1
        assert entries["image_threshold"] == entries["pixel_threshold"] == 0.5
        assert entries["image_size"] == [32, 48]
        assert {"anomalib_version", "anomalib-hgad_version", "torch_version"} <= set(entries)


def test_graph_is_folded_and_has_no_loop_and_no_random_number(exported: dict[str, Path]) -> None:
    """No sine of a position code, no softplus of a scale; as many matrix products as the flow has matrices."""
    graph = onnx.load(exported["onnx"], load_external_data=False)
    assert graph.opset_import[0].version == 18
    kinds = [node.op_type for node in graph.graph.node]
    assert not {"Sin", "Cos", "Softplus", "Loop", "If", "RandomNormal", "RandomUniform"} & set(kinds)
    levels, blocks = 2, LIGHT["flow_arguments"]["coupling_blocks"]
    mixture = 1 + 1  # distances to the main centres, and to the centres of the inferred class
    resizing = 2
    maps = 2 * 2  # rows and columns of the maps of likelihood and entropy
    assert kinds.count("MatMul") + kinds.count("Gemm") == resizing + levels * (1 + 3 * blocks + mixture + maps)


def test_model_is_as_it_was_after_an_export(exported: dict[str, Path], module: Hgad, tmp_path: Path) -> None:
    assert all(isinstance(flow, ConditionalFlow) for flow in module.model.flows)
    assert any(parameter.requires_grad for parameter in module.parameters())
    before = module.model
    with pytest.raises(TypeError):
        module.to_onnx(tmp_path, nonsense=1)
    assert module.model is before


def test_torch_export_is_folded(module: Hgad, tmp_path: Path) -> None:
    path = module.to_torch(tmp_path)
    restored = torch.load(path, weights_only=False)["model"]
    assert all(isinstance(flow, FoldedFlow) for flow in restored.model.flows)
    images = torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        expected = as_in_a_test(module, images).pred_score
        torch.testing.assert_close(restored(images).pred_score, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def program(light_run: LightRun) -> Path:
    return light_run.run.exports[".pt2"]


@pytest.mark.nightly
@pytest.mark.parametrize("shape", [(1, 3, 32, 48), (2, 3, 60, 50), (5, 3, 21, 100)])
def test_program_of_torch_export_computes_what_a_test_computes(
    program: Path, module: Hgad, shape: tuple[int, ...]
) -> None:
    """Batches and images of any size."""
    images = torch.rand(*shape)
    outputs = torch.export.load(program).module()(images)
    assert_computes_what_pytorch_computes({name: value.numpy() for name, value in outputs.items()}, module, images)


@pytest.mark.nightly
@pytest.mark.subprocess
def test_program_of_torch_export_needs_pytorch_alone(program: Path, module: Hgad) -> None:
    """And says what it is."""
    code = """
import json, sys, torch
texts = {"model_info.json": ""}
model = torch.export.load(sys.argv[1], extra_files=texts).module()
score = model(torch.zeros(2, 3, 40, 50))["pred_score"]
assert not {"anomalib", "timm", "torchvision", "lightning"} & set(sys.modules)
print(json.dumps([texts["model_info.json"], score.tolist()]))
"""
    process = subprocess.run([sys.executable, "-c", code, program], capture_output=True, text=True, check=True)
    description, scores = json.loads(process.stdout)
    assert json.loads(description) == module.description()
    with torch.no_grad():
        expected = as_in_a_test(module, torch.zeros(2, 3, 40, 50)).pred_score
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


@pytest.mark.nightly
def test_uniad_exports_by_torch_export(tmp_path: Path) -> None:
    module = UniAd(**LIGHT_UNIAD).eval()
    module.is_trained = True
    outputs = torch.export.load(module.to_torch_export(tmp_path)).module()(images := torch.rand(3, 3, 40, 30))
    with torch.no_grad():
        expected = as_in_a_test(module, images)
    assert outputs.keys() == {"pred_score", "pred_label", "anomaly_map", "pred_mask"}
    np.testing.assert_allclose(outputs["pred_score"], expected.pred_score, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(outputs["anomaly_map"], expected.anomaly_map, rtol=1e-3, atol=1e-4)


@pytest.mark.nightly
def test_export_prints_no_traceback_and_no_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    module = Hgad(**ONE_LEVEL).eval()
    module.set_class_names(["bolt"])
    module.to_openvino(tmp_path)
    module.to_torch_export(tmp_path)
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    assert "Error" not in printed
    assert not [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("names", "settings"),
    [
        pytest.param(["bolt"], {}, id="one class"),
        pytest.param(CLASSES, {"prior": "single_gaussian"}, id="single Gaussian"),
        pytest.param(
            ["bolt"],
            {"flow": "linear", "flow_arguments": {}, "covariance": "full", "score": "contrast"},
            id="one class, closed form",
        ),
    ],
)
def test_model_of_one_class_exports_without_a_class(names: list[str], settings: dict[str, Any], tmp_path: Path) -> None:
    """But with a novelty."""
    single = Hgad(**ONE_LEVEL | settings).eval()
    single.set_class_names(names)
    path = single.to_onnx(tmp_path)
    properties = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    assert json.loads(properties["class_tensor"]) is None
    images = torch.rand(2, 3, 32, 32)
    outputs = from_onnx(path, [(NOVELTY_TENSOR, onnx.TensorProto.FLOAT)])(images.numpy())
    prediction, _ = single.model.predict(single.pre_processor.transform(images))
    assert_novelty(outputs[NOVELTY_TENSOR], prediction.novelty)


@pytest.mark.nightly
def test_graph_is_folded_for_the_size_that_the_pre_processor_ends_with(tmp_path: Path) -> None:
    """A resized image may be cropped."""
    transform = Compose([Resize((40, 40)), CenterCrop((32, 32))])
    module = Hgad(**ONE_LEVEL, pre_processor=PreProcessor(transform=transform)).eval()
    module.set_class_names(["bolt"])
    path = module.to_onnx(tmp_path)
    images = torch.rand(2, 3, 50, 60)
    outputs = openvino.compile_model(openvino.Core().read_model(path), "CPU", IN_FLOAT32)(images.numpy())
    with torch.no_grad():
        expected = as_in_a_test(module, images).anomaly_map
        np.testing.assert_allclose(outputs["anomaly_map"], expected, rtol=1e-3, atol=1e-4)
    assert outputs["anomaly_map"].shape == (2, 1, 32, 32)


def test_without_resizing_the_size_must_be_given(tmp_path: Path) -> None:
    module = Hgad(**ONE_LEVEL, pre_processor=False).eval()
    module.set_class_names(["bolt"])
    with pytest.raises(ValueError, match=r"accepts images of one size only.*input_size=\(height, width\), got None"):
        module.to_onnx(tmp_path)


@pytest.mark.nightly
def test_without_resizing_a_size_that_is_given_is_that_of_the_graph(tmp_path: Path) -> None:
    module = Hgad(**ONE_LEVEL, pre_processor=False).eval()
    module.set_class_names(["bolt"])
    images = torch.rand(2, 3, 64, 48)
    path = module.to_onnx(tmp_path, input_size=(64, 48))
    outputs = openvino.compile_model(openvino.Core().read_model(path), "CPU", IN_FLOAT32)(images[:1].numpy())
    with torch.no_grad():
        np.testing.assert_allclose(outputs["anomaly_map"], module(images[:1]).anomaly_map, rtol=1e-3, atol=1e-4)


def test_file_of_a_model_without_a_validation_has_no_threshold() -> None:
    """anomalib's graph compares raw scores with 0.5 then."""
    described = Hgad(**ONE_LEVEL).description()
    assert described["image_threshold"] == described["pixel_threshold"] == "null"
