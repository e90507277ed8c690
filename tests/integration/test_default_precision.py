# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Exported OpenVINO files compute in float32 where OpenVINO's default is bfloat16, without a setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from anomalib.deploy import CompressionType

from anomalib_hgad import Hgad, UniAd
from tests.helpers.exports import in_bfloat16, to_openvino
from tests.helpers.light import LIGHT, LIGHT_UNIAD

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("seeded")]

CLOSED_FORM = {
    "levels": {"layer2": [1.0]},
    "flow": "linear",
    "flow_arguments": {},
    "covariance": "full",
    "score": "contrast",
}
MODELS = {
    "conditional": lambda: Hgad(**LIGHT),
    "linear": lambda: Hgad(**LIGHT | CLOSED_FORM),
    "uniad": lambda: UniAd(**LIGHT_UNIAD),
}


@pytest.mark.parametrize(
    "name", ["linear", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("conditional", "uniad"))]
)
def test_no_node_is_left_to_bfloat16(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().eval()
    if isinstance(model, Hgad):
        model.set_class_names(["bolt", "gear wheel", "nut"])
    else:
        model.is_trained = True
    graph = model.to_onnx(tmp_path)
    assert in_bfloat16(graph), "the graph as it is has such nodes"
    for kind in (None, "FP16", "INT8"):
        path = to_openvino(model, graph, tmp_path / str(kind), compression_type=kind and CompressionType[kind])
        assert in_bfloat16(path) == []
