# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""INT8 forms: they are small, score as PyTorch does up to rounding, and keep the mixture in floating point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.data.utils import read_image
from anomalib.deploy import CompressionType
from anomalib.engine import Engine
from anomalib.metrics import AUROC

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.export import CLASS_TENSOR, IN_FLOAT32
from tests import trees
from tests.light import LIGHT

BIASES = 1024
"""Elements of the positions' part of a block in this model: 8 x 8 positions, 16 hidden channels at least."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in ("bolt", "nut"):
        trees.mvtec_class(root / name, train=6, size=(60, 50))
    return root


@pytest.fixture(scope="module")
def datamodule(data: Path) -> MultiClass:
    return MultiClass(root=data, train_batch_size=4, eval_batch_size=2, num_workers=0, val_split_mode="same_as_test")


@pytest.fixture(scope="module")
def module(datamodule: MultiClass, tmp_path_factory: pytest.TempPathFactory) -> Hgad:
    module = Hgad(**LIGHT | {"image_size": 64, "seed": 0})
    engine = Engine(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path_factory.mktemp("results"),
    )
    engine.fit(module, datamodule=datamodule)
    return module.eval().cpu()


@pytest.fixture(scope="module")
def exported(module: Hgad, datamodule: MultiClass, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    kinds = {"FP32": None, "FP16": "fp16", "INT8": "int8", "INT8_PTQ": "int8_ptq"}
    return {
        name: module.to_openvino(folder / name, compression_type=kind and CompressionType(kind), datamodule=datamodule)
        for name, kind in kinds.items()
    }


def outputs(path: Path, images: list[torch.Tensor]) -> dict[str, np.ndarray]:
    graph = openvino.Core().read_model(path)
    graph.add_outputs(CLASS_TENSOR)
    model = openvino.compile_model(graph, "CPU", IN_FLOAT32)
    results = [{key.any_name: value.copy() for key, value in model(image.numpy()).items()} for image in images]
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


@pytest.mark.parametrize(("kind", "tolerance"), [("FP32", 1e-4), ("FP16", 0.02), ("INT8", 0.2), ("INT8_PTQ", 0.4)])
def test_scores_are_pytorchs_up_to_rounding(
    exported: dict[str, Path], module: Hgad, data: Path, kind: str, tolerance: float
) -> None:
    images = [read_image(path, as_tensor=True).unsqueeze(0) for path in sorted(data.glob("*/t*/*/*.png"))]
    with torch.no_grad():
        of_images = [module.model(module.pre_processor.transform(image)) for image in images]
        expected = [module.post_processor(InferenceBatch(*prediction)) for prediction in of_images]
    scores = np.concatenate([prediction.pred_score.numpy() for prediction in expected])
    actual = outputs(exported[kind], images)
    difference = np.abs(actual["pred_score"].squeeze() - scores)
    assert difference.max() <= tolerance * max(np.ptp(scores), 0.1)
    reference = outputs(exported["FP32"], images)
    assert (actual[CLASS_TENSOR][:, 0] == reference[CLASS_TENSOR][:, 0]).mean() >= 0.9


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
        and node.data.size > BIASES
    ]
    assert [node.data.shape for node in large if node.data.shape[:2] != (2, 10)] == []  # but the classes' centres


def test_mixture_and_smoothing_stay_in_floating_point(exported: dict[str, Path], module: Hgad) -> None:
    """Of the products, those with the weights of backbone and flows alone are quantised."""
    graph = openvino.Core().read_model(exported["INT8_PTQ"])
    products = [node for node in graph.get_ordered_ops() if node.get_type_name() in {"Convolution", "MatMul"}]
    quantised = [node for node in products if "FakeQuantize" in ancestors(node)]
    levels, blocks, kernels = 2, LIGHT["coupling_blocks"], 4
    flows = levels * (1 + 3 * blocks)
    mixture, resizing = levels * 4, 2
    convolutions = sum(node.get_type_name() == "Convolution" for node in products)
    assert len(quantised) == flows + convolutions - kernels
    assert len(products) == flows + convolutions + mixture + resizing


def ancestors(node: openvino.Node) -> set[str]:
    """Types of what feeds a node's first input, through operations that move numbers only."""
    types = set()
    source = node.input_value(0).get_node()
    while source.get_type_name() in {"FakeQuantize", "Reshape", "Transpose", "Convert", "Multiply"}:
        types.add(source.get_type_name())
        source = source.input_value(0).get_node()
    return types


def test_accuracy_control_keeps_to_the_metric(module: Hgad, datamodule: MultiClass, tmp_path: Path) -> None:
    path = module.to_openvino(
        tmp_path,
        compression_type=CompressionType.INT8_ACQ,
        datamodule=datamodule,
        metric=AUROC(fields=["pred_score", "gt_label"]),
        max_drop=0.5,
    )
    assert np.isfinite(outputs(path, [torch.rand(1, 3, 40, 40)])["pred_score"]).all()


def test_model_of_one_class_is_quantised(data: Path, tmp_path: Path) -> None:
    """Without a tensor of classes."""
    single = Hgad(**LIGHT, post_processor=False).eval()
    datamodule = MultiClass(root=data, num_workers=0)
    path = single.to_openvino(tmp_path, compression_type=CompressionType.INT8_PTQ, datamodule=datamodule)
    model = openvino.compile_model(openvino.Core().read_model(path), "CPU", IN_FLOAT32)
    assert np.isfinite(model(np.zeros((1, 3, 40, 40), dtype=np.float32))["pred_score"]).all()


def test_calibrated_forms_need_data(module: Hgad, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"INT8_PTQ takes the ranges .* expected a datamodule, got None"):
        module.to_openvino(tmp_path, compression_type=CompressionType.INT8_PTQ)
