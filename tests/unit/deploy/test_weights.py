# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""An exported file and the weights beside it belong together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

from anomalib_hgad.deploy.graph import read_graph
from anomalib_hgad.deploy.weights import CHECKSUMS, UNKNOWN, checksum, seal, weights_of
from tests.helpers.drawn_models import THRESHOLD, brightness_model


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = brightness_model(tmp_path / "model.xml", **{CHECKSUMS: UNKNOWN})
    seal(path)
    return path


def onnx_file(folder: Path, value: float) -> Path:
    """A graph whose weights lie beside it."""
    folder.mkdir()
    weights = onnx.numpy_helper.from_array(np.full(400, value, dtype=np.float32), "weights")
    node = onnx.helper.make_node("Add", ["input", "weights"], ["pred_score"])
    entry, end = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [400]) for name in ("input", "pred_score")
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [entry], [end], [weights]), opset_imports=opset)
    model.ir_version = 10
    described = {"model": "anomalib_hgad.UniAd", CHECKSUMS: UNKNOWN}
    onnx.helper.set_model_props(model, {name: json.dumps(entry) for name, entry in described.items()})
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    seal(path)
    return path


def test_checksums_are_those_of_file_and_weights(exported: Path) -> None:
    told = read_graph(exported)[1][CHECKSUMS]
    content = exported.read_bytes()
    assert len(told) == len(UNKNOWN)
    assert told[16:] == checksum(exported.with_suffix(".bin"))
    assert told[:16] == checksum(content.replace(told.encode(), UNKNOWN.encode())) != checksum(content)


def test_weights_of_another_export_are_refused(exported: Path) -> None:
    """As after copying one of the two files; the graph would run."""
    weights = exported.with_suffix(".bin")
    before, after = (np.float32(threshold).tobytes() for threshold in (THRESHOLD, 0.4))
    assert before in weights.read_bytes()
    weights.write_bytes(weights.read_bytes().replace(before, after))
    with pytest.raises(ValueError, match=r"model\.bin does not belong to .*model\.xml.*Copy both files of one export"):
        read_graph(exported)


def test_file_that_was_saved_again_is_not_checked(exported: Path, tmp_path: Path) -> None:
    """A changed graph has other weights, and is no other export."""
    graph = openvino.Core().read_model(exported)
    graph.reshape([1, 3, 8, 12])
    openvino.save_model(graph, tmp_path / "again.xml", compress_to_fp16=True)
    assert read_graph(tmp_path / "again.xml")[1][CHECKSUMS] == read_graph(exported)[1][CHECKSUMS]


def test_missing_weights_of_an_xml_file(exported: Path) -> None:
    exported.with_suffix(".bin").unlink()
    with pytest.raises(ValueError, match=r"model\.xml cannot be used by OpenVINO: .*bin file"):
        read_graph(exported)
    with pytest.raises(FileNotFoundError, match=r"has its weights in .*model\.bin, which is missing"):
        weights_of(exported)


def test_onnx_files(tmp_path: Path) -> None:
    path, other = onnx_file(tmp_path / "a", 1), onnx_file(tmp_path / "b", 2)
    renamed = path.rename(path.with_name("renamed.onnx"))  # its weights keep their name
    assert weights_of(renamed) == path.with_name("model.onnx.data")
    assert read_graph(renamed)[1]["model"] == "anomalib_hgad.UniAd"
    shutil.copy(other.with_name("model.onnx.data"), renamed.parent)
    with pytest.raises(ValueError, match=r"model\.onnx\.data does not belong to .*renamed\.onnx"):
        read_graph(renamed)
    path.with_name("model.onnx.data").unlink()
    with pytest.raises(FileNotFoundError, match=r"has its weights in .*model\.onnx\.data, which is missing"):
        read_graph(renamed)
    renamed.write_bytes(renamed.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"renamed\.onnx is not an \.onnx file, or was cut short"):
        read_graph(renamed)
