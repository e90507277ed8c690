# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A watch on exported models: it says what inferencers say, the monitor reads its table, its memory stays as it is."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import pytest
from anomalib.deploy import OpenVINOInferencer
from PIL import Image

from anomalib_hgad import ClassOpenVINOInferencer, UniAd, cli
from anomalib_hgad.deploy.graph import IN_FLOAT32
from anomalib_hgad.report.monitor.periods import read_periods
from tests.helpers.light import LIGHT_UNIAD
from tests.helpers.light_run import CLASSES, LightRun
from tests.helpers.trees import write_image
from tests.stress.watch import watched

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(light_run: LightRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of several sizes, modes and formats, in subfolders: known and unknown, good and bad ones."""
    folder = tmp_path_factory.mktemp("images")
    for number, (mode, suffix) in enumerate([("RGB", ".png"), ("L", ".png"), ("RGBA", ".png"), ("RGB", ".jpg")]):
        for size in ((32, 32), (64, 200)):
            write_image(folder / f"cam{number}/{size[0]}{suffix}", size, mode)
    for path in light_run.images.values():
        shutil.copy(path, folder / "cam0")
    Image.new("RGB", (40, 40), (250, 5, 5)).save(folder / "flat.bmp")
    return folder


def table(images: Path, model: Path, output: Path) -> dict[str, dict[str, str]]:
    arguments = ("--model", str(model), "--output", str(output), "--once", "--settle=0")
    assert cli.main(["watch", str(images), *arguments]) == 0
    with output.open(newline="", encoding="utf-8") as file:
        return {row["image_path"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("kind", [".xml", ".onnx"])
def test_says_what_the_inferencer_says(kind: str, images: Path, light_run: LightRun, tmp_path: Path) -> None:
    model = light_run.run.exports[kind]
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
