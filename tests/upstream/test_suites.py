# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's own tests on our models and data, where a checkout of its repository is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upstream.suites import run_suites

FAILING = {
    "test_export_mixin::test_to_onnx_uses_legacy_exporter_by_default",
    "test_export_mixin::test_to_onnx_treats_none_dynamo_as_false",
    "test_export_mixin::test_to_onnx_uses_dynamic_shapes_for_dynamo_export",
    "test_export_mixin::test_to_onnx_translates_custom_dynamic_axes_for_dynamo_export",
    "test_export_mixin::test_to_onnx_raises_actionable_error_for_missing_onnxscript",
    "test_inferencer::test_inference_similarity",
}
"""Tests that fail whatever the model is; docs/reference/reliability.md says why."""


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "suite",
    [
        "Hgad model",
        "Hgad cli",
        "Hgad deploy",
        "Hgad tiled ensemble",
        "Hgad benchmark",
        "UniAd model",
        "UniAd cli",
        "UniAd deploy",
        "UniAd tiled ensemble",
        "UniAd benchmark",
        "MultiClass datamodule",
    ],
)
def test_suite_of_anomalib(suite: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if not (checkout := request.config.getoption("--anomalib-checkout")):
        pytest.skip("--anomalib-checkout names no checkout of anomalib's repository")
    ours, part = suite.split(" ", 1)
    outcomes = run_suites(Path(checkout).resolve(), "Padim" if part == "datamodule" else ours, tmp_path / "run", part)
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    assert "passed" in outcomes.values()
    assert failed <= FAILING, (tmp_path / "run/log.txt").read_text()[-10_000:]
