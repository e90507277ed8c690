# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The benchmark of a GPU in miniature, on what this machine has: its rows are there, and say what they should."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks import gpu, measure
from tests.benchmarks.gpu_model import Bench, closed_form
from tests.benchmarks.gpu_plan import CUT

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("gpu") / "gpu.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "REPEATS", 1)
        gpu.main(["--cut", "--json", str(file)])
    return json.loads(file.read_text())


def test_all_sections_say_what_they_were_made_with(results: dict[str, Any]) -> None:
    assert list(results) == ["environment", *gpu.SECTIONS]
    assert results["environment"]["torch"] == torch.__version__
    assert results["environment"]["TF32 in convolutions"] == torch.backends.cudnn.allow_tf32


def test_every_row_has_a_speed_and_a_memory(results: dict[str, Any]) -> None:
    rows = results["training"] + results["inference"]
    settings = list(CUT.settings.values())
    # Two precisions; two kinds of a step, four parts of inference.
    assert len(results["training"]) == 2 * 2 * sum(len(each.training) * len(each.shares) for each in settings)
    assert len(results["inference"]) == 2 * 4 * sum(len(each.inference) for each in settings)
    for row in rows:
        assert 0 < row["images/s"] < math.inf
        assert row["images/s"] * row["ms"] == pytest.approx(1000 * row["batch"])
        assert row["MB"] > 0


def test_losses_stay_finite_and_fall_in_both_precisions(results: dict[str, Any]) -> None:
    assert [row["precision"] for row in results["long training"]] == ["float32", "bfloat16"]
    for row in results["long training"]:
        assert row["finite"]
        assert math.isfinite(row["largest loss"])
        assert row["last loss"] < row["first loss"]


def test_scores_are_those_of_the_processor(results: dict[str, Any]) -> None:
    rows = {row["what"]: row for row in results["scores"]}
    for what in ("float32, no TF32", "float64 on the processor"):
        for part in ("pred_score", "anomaly_map"):
            assert rows[what][f"difference of {part}"] < 1e-4 * rows[what][f"span of {part}"]
        assert rows[what]["same class"] == rows[what]["images"]
    assert rows["float64 on the processor"]["difference of pred_score"] > 0  # it is another computation
    # Half precision was really on, and leaves most of a score.
    assert 1e-4 < rows["bfloat16"]["difference of pred_score"] < 0.5 * rows["bfloat16"]["span of pred_score"]


def test_missing_providers_are_named(results: dict[str, Any]) -> None:
    """onnxruntime is a part of the test's requirements, and computes on the processor everywhere."""
    of_providers = {row["provider"]: row for row in results["onnx"]}
    assert list(of_providers) == list(gpu.PROVIDERS)
    assert of_providers["CPUExecutionProvider"]["images/s"] > 0
    for row in of_providers.values():
        assert ("state" in row) != ("images/s" in row)


def test_closed_form_is_the_gaussian_of_the_class() -> None:
    """Twice the negative log-density of PyTorch's Gaussian, but for its constant."""
    model = next(iter(CUT.settings.values())).model
    bench = Bench(model)
    images, class_index = bench.images(3)
    features = bench.features(images)
    distances = closed_form(bench, features, class_index)
    for level, (means, inverses), actual in zip(features, bench.gaussians, distances, strict=True):
        rows = level.flatten(2).mT.double()
        for row, index, of_image in zip(rows, class_index, actual, strict=True):
            lower = torch.linalg.inv(inverses[index].double()).tril()
            gaussian = torch.distributions.MultivariateNormal(means[index].double(), scale_tril=lower)
            expected = 2 * (gaussian.log_prob(means[index].double()) - gaussian.log_prob(row))
            torch.testing.assert_close(of_image.double(), expected, rtol=1e-3, atol=1e-3)


def test_sections_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "onnx", lambda setting, bench: iter([{"provider": "none"}]))
    gpu.main(["--cut", "--only", "onnx", "--json", str(tmp_path / "gpu.json")])
    assert list(json.loads((tmp_path / "gpu.json").read_text())) == ["environment", "onnx"]
    with pytest.raises(SystemExit):
        gpu.main(["--only", "speed"])
