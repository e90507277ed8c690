# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Operations of exported graphs say which module they are of."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import openvino
import pytest

from anomalib_hgad import Hgad
from anomalib_hgad.deploy.module_names import modules_of
from tests.helpers.light import LIGHT

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.usefixtures("seeded")]

PARTS = ("model.encoder", "model.flows")


def test_products_are_of_the_module_of_their_weights(tmp_path: Path) -> None:
    """By the names of the weights, as PyTorch's exporter notes them beside each operation; in OpenVINO too."""
    module = Hgad(**LIGHT).eval()
    module.set_class_names(["bolt", "nut"])
    path = module.to_onnx(tmp_path)
    products = {"Conv", "MatMul", "Gemm"}
    expected = []
    for node in (node for node in onnx.load(path).graph.node if node.op_type in products):
        (note,) = (entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.fx_node")
        part = next((part for part in PARTS if f"_{part.replace('.', '_')}_" in note), None)
        expected.append(part)
        assert next((part for part in PARTS if node.name.startswith(f"{part}.")), None) == part, node.name
    assert expected.count("model.encoder") == 16
    assert expected.count("model.flows") == 2 * (1 + 3 * LIGHT["flow_arguments"]["coupling_blocks"])
    graph = openvino.convert_model(path)  # which gives names of its own
    modules = modules_of(graph)
    names = [
        modules[node.get_friendly_name()]
        for node in graph.get_ordered_ops()
        if node.get_type_name() in {"Convolution", "MatMul"}
    ]
    for part in PARTS:
        assert sum(bool(re.match(rf"{re.escape(part)}\.", name)) for name in names) == expected.count(part)
