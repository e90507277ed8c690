# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Wrong settings of an export are refused before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from anomalib.deploy import CompressionType
from anomalib.metrics import F1Score
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import CenterCrop, Compose, Resize, Transform

from anomalib_hgad import Hgad
from anomalib_hgad.deploy.export_settings import check_compression, check_file_name, check_input_size
from anomalib_hgad.models.hgad.novelty import WIDE_MARGIN
from tests.helpers.light import LIGHT


@pytest.fixture(scope="module")
def module() -> Hgad:
    module = Hgad(**LIGHT)
    module.set_class_names(["bolt"])
    module.model.novelty.margin.fill_(WIDE_MARGIN)
    return module.eval()


@pytest.mark.parametrize("name", ["", "parts/model", "../model", "/model", "."])
def test_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"Expected model_file_name to be a name without folders, .* as export_root"):
        check_file_name(name)


@pytest.mark.parametrize("name", ["model", "model.v1", "bolt (M6) ü", ".hidden"])
def test_names_of_files(name: str) -> None:
    check_file_name(name)


@pytest.mark.parametrize("kind", ["to_torch", "to_onnx", "to_openvino", "to_torch_export"])
def test_no_export_writes_elsewhere(kind: str, module: Hgad, tmp_path: Path) -> None:
    """By a name that leads out of the folder for unfinished files, whose content would replace what is there."""
    with pytest.raises(ValueError, match="Expected model_file_name"):
        getattr(module, kind)(tmp_path, model_file_name="../../model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(0, 32), (32, -1), (32,), (32, 32, 3), (32.0, 32.0), 32, "32"])
def test_size_that_is_none_is_refused(size: Any, module: Hgad, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected input_size to be a height and a width in pixels, .* got"):
        module.to_onnx(tmp_path, input_size=size)
    assert not list(tmp_path.iterdir())


def test_sizes() -> None:
    for size in (None, (1, 2000), [32, 48]):
        check_input_size(size)


@pytest.mark.parametrize("given", ["INT8", "int4", "INT8_PTQ", ""])
def test_compression_that_there_is_not_is_refused(given: str, module: Hgad, tmp_path: Path) -> None:
    """Each would be taken for INT8_ACQ."""
    with pytest.raises(ValueError, match=rf"compression_type .* fp16, int8, int8_ptq, int8_acq; got '{given}'"):
        module.to_openvino(tmp_path, compression_type=given, datamodule=object())
    assert not list(tmp_path.iterdir())


def test_compression_by_its_value_needs_data_as_by_its_name() -> None:
    with pytest.raises(ValueError, match="must be provided: INT8_PTQ measures"):
        check_compression({"compression_type": "int8_ptq"})
    check_compression({"compression_type": "int8_ptq", "datamodule": object()})


def test_metric_that_is_none_is_refused() -> None:
    arguments = {"compression_type": CompressionType.INT8_ACQ, "datamodule": object()}
    with pytest.raises(ValueError, match=r"Expected metric to be a metric .* got 'F1Score'"):
        check_compression(arguments | {"metric": "F1Score"})
    check_compression(arguments | {"metric": F1Score(fields=["pred_label", "gt_label"])})


@pytest.mark.parametrize("kind", [None, CompressionType.FP16, CompressionType.INT8, CompressionType.INT8_PTQ])
def test_metric_that_is_not_used_is_told(kind: CompressionType | None, caplog: pytest.LogCaptureFixture) -> None:
    metric = F1Score(fields=["pred_label", "gt_label"])
    check_compression({"compression_type": kind, "datamodule": object(), "metric": metric})
    assert f"compression_type is {kind.name if kind else None}" in caplog.text


@pytest.mark.parametrize(
    "steps",
    [[Resize(40, antialias=False), CenterCrop(32)], [CenterCrop(32)]],
    ids=["shorter side", "crop"],
)
def test_graph_of_a_transform_that_depends_on_the_size_needs_the_size(steps: list[Transform], tmp_path: Path) -> None:
    """For images of any size it would resize all as the example of the export, and score them otherwise."""
    other = Hgad(**LIGHT, pre_processor=PreProcessor(transform=Compose(steps)))
    other.set_class_names(["bolt"])
    other.model.novelty.margin.fill_(WIDE_MARGIN)
    with pytest.raises(ValueError, match=r"not begin with a Resize to a height and a width.*Expected this size as"):
        other.eval().to_onnx(tmp_path)
    assert not list(tmp_path.iterdir())
