# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A watch on exported models: it says what inferencers say, the monitor reads its table, its memory stays as it is."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.deploy import OpenVINOInferencer
from PIL import Image

from anomalib_hgad import ClassOpenVINOInferencer, Hgad, UniAd, cli
from anomalib_hgad.deploy.graph import IN_FLOAT32
from anomalib_hgad.report.monitor.periods import read_periods
from tests.helpers.light import LIGHT, LIGHT_UNIAD
from tests.helpers.trees import write_image
from tests.stress.watch import watched

pytestmark = pytest.mark.slow

CLASSES = ["bolt", "nut"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of several sizes, modes and formats, in subfolders."""
    folder = tmp_path_factory.mktemp("images")
    for number, (mode, suffix) in enumerate([("RGB", ".png"), ("L", ".png"), ("RGBA", ".png"), ("RGB", ".jpg")]):
        for size in ((32, 32), (50, 40), (64, 200)):
            write_image(folder / f"cam{number}/{size[0]}{suffix}", size, mode)
    Image.new("RGB", (40, 40), (250, 5, 5)).save(folder / "flat.bmp")
    return folder


def table(images: Path, model: Path, output: Path) -> dict[str, dict[str, str]]:
    arguments = ("--model", str(model), "--output", str(output), "--once", "--settle=0")
    assert cli.main(["watch", str(images), *arguments]) == 0
    with output.open(newline="", encoding="utf-8") as file:
        return {row["image_path"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("kind", ["openvino", pytest.param("onnx", marks=pytest.mark.nightly)])
def test_says_what_the_inferencer_says(kind: str, images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    module = Hgad(**LIGHT).eval()
    module.set_class_names(CLASSES)
    # Between the scores and novelties of these images, so that there are good, bad and unknown ones.
    scores, novelties = [], []
    for path in sorted(images.rglob("*.*")):
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255
        prediction = module.model.predict(module.pre_processor.transform(pixels))[0]
        scores.append(prediction.pred_score.item())
        novelties.append(prediction.novelty.item())
    low, high = np.quantile(novelties, [0.2, 0.7])
    module.model.novelty.margin.fill_(float(high - low))
    module.model.novelty.location.fill_(-float(low))
    for name in ("image", "pixel"):
        setattr(module.post_processor, f"_{name}_threshold", torch.tensor(float(np.median(scores))))
        setattr(module.post_processor, f"{name}_min", torch.tensor(min(scores)))
        setattr(module.post_processor, f"{name}_max", torch.tensor(max(scores)))
    model = module.to_openvino(tmp_path) if kind == "openvino" else module.to_onnx(tmp_path)
    inferencer = ClassOpenVINOInferencer(model)
    rows = table(images, model, tmp_path / "table.csv")
    assert len(rows) == 13
    for path, row in rows.items():
        expected = inferencer.predict(path)
        (name,), novelty = expected.pred_class_name, expected.novelty.item()
        assert float(row["pred_score"]) == pytest.approx(expected.pred_score.item(), abs=1e-5)
        assert float(row["novelty"]) == pytest.approx(novelty, rel=1e-3, abs=1e-4)
        assert row["pred_label"] == str(bool(expected.pred_label.item()))
        assert row["pred_class_name"] == name
        assert row["scored_class_name"] == CLASSES[int(expected.pred_class_index[0])]
        assert row["verdict"] == ("unknown" if name == "unknown" else "bad" if expected.pred_label else "good")
    assert {row["verdict"] for row in rows.values()} == {"good", "bad", "unknown"}
    (period,) = read_periods([tmp_path / "table.csv"], CLASSES)
    assert (period.images, period.unknown) == (13, sum(row["verdict"] == "unknown" for row in rows.values()))


@pytest.mark.nightly
def test_model_without_classes(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # anomalib's inferencer leaves a cache where it is
    module = UniAd(**LIGHT_UNIAD).eval()
    module.is_trained = True
    model = module.to_openvino(tmp_path)
    inferencer = OpenVINOInferencer(model, "CPU", IN_FLOAT32)
    rows = table(images, model, tmp_path / "table.csv")
    assert len(rows) == 13
    for path, row in rows.items():
        assert float(row["pred_score"]) == pytest.approx(inferencer.predict(path).pred_score.item(), rel=1e-4)
        assert (row["pred_class_name"], row["novelty"], row["verdict"], row["pred_label"]) == ("", "", "", "")


@pytest.mark.subprocess
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_as_it_is(tmp_path: Path) -> None:
    """Over 1500 images after the first 500; the pixels of 40 of them take a megabyte as the model takes them."""
    taken = watched(2000, 4, tmp_path)
    assert taken[-1][0] == 2000
    assert taken[-1][1] - taken[0][1] < 4e6
