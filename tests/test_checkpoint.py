# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of what checkpoints say, and of those that cannot be read."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from anomalib.deploy import ExportType
from anomalib.engine import Engine

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.checkpoint import describe, described_class_names
from tests import trees
from tests.light import LIGHT


def described() -> dict[str, Any]:
    checkpoint: dict[str, Any] = {}
    describe(checkpoint, ["bolt", "nut"])
    return checkpoint


def test_classes_come_back() -> None:
    assert described_class_names(described()) == ["bolt", "nut"]


def test_versions_of_the_same_minor_release_are_read() -> None:
    checkpoint = described()
    major, minor = version("anomalib").split(".")[:2]
    checkpoint["hgad_versions"]["anomalib"] = f"{major}.{minor}.999"
    assert described_class_names(checkpoint) == ["bolt", "nut"]


@pytest.mark.parametrize(("package", "other"), [("anomalib-hgad", "0.99.0"), ("anomalib", "1.2.0")])
def test_other_versions_are_named(package: str, other: str) -> None:
    checkpoint = described()
    checkpoint["hgad_versions"][package] = other
    message = f"made with .*{package} {other}.*; installed are .*{package} {version(package)}.*Install the versions"
    with pytest.raises(ValueError, match=message):
        described_class_names(checkpoint)


def test_checkpoint_that_does_not_say_is_refused() -> None:
    checkpoint = described()
    del checkpoint["hgad_versions"]
    with pytest.raises(ValueError, match=r"made with anomalib-hgad 0\.0 \(not said\)"):
        described_class_names(checkpoint)


def test_checkpoint_that_says_half_is_refused() -> None:
    checkpoint = described()
    del checkpoint["hgad_versions"]["anomalib-hgad"]
    with pytest.raises(ValueError, match=r"made with anomalib-hgad 0\.0 \(not said\) and anomalib 2"):
        described_class_names(checkpoint)


def test_checkpoint_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="this one is of another model"):
        described_class_names({"state_dict": {}})


def test_checkpoint_of_a_gpu_is_read_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And exports. The file says of its tensors that they were on a GPU."""
    data = trees.mvtec_class(tmp_path / "data/bolt").parent
    engine = Engine(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path / "results"
    )
    model = Hgad(**LIGHT)
    engine.fit(model, datamodule=MultiClass(root=data, num_workers=0))
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    engine.trainer.save_checkpoint(tmp_path / "gpu.ckpt")
    monkeypatch.undo()
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="deserialize object on a CUDA device"):
            torch.load(tmp_path / "gpu.ckpt", weights_only=True)
    path = Engine(accelerator="cpu").export(
        Hgad(**LIGHT), ExportType.ONNX, export_root=tmp_path, ckpt_path=tmp_path / "gpu.ckpt"
    )
    images = torch.rand(1, 3, 32, 32)
    outputs = onnxruntime.InferenceSession(path).run(["pred_score"], {"input": images.numpy()})
    assert outputs[0].item() == pytest.approx(model.eval().cpu()(images).pred_score.item(), abs=1e-4)
