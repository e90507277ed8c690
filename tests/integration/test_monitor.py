# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""From the images of a line to its charts: what drifts is flagged, what does not is not."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomalib_hgad import Hgad, MultiClass, cli
from anomalib_hgad.demo.backbone import BACKBONE, LAYERS, WEIGHTS
from anomalib_hgad.demo.images import render
from tests.helpers.engines import engine

pytestmark = [pytest.mark.nightly, pytest.mark.slow]

RealLine = tuple[Hgad, Path, dict[str, list[np.ndarray]]]
CHECKPOINT = Path("weights/lightning/model.ckpt")
DRIFTS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "brighter": lambda image, by: (image * (1 + 0.1 * by)).clip(0, 255).astype(np.uint8),
    "out of focus": lambda image, by: cv2.GaussianBlur(image, (0, 0), 0.1 + 0.25 * by),
    "shifted": lambda image, by: cv2.warpAffine(
        image, np.float32([[1, 0, 5 * by], [0, 1, 0]]), image.shape[1::-1], borderMode=cv2.BORDER_REFLECT
    ),
}
"""Each by some number of steps; 0 leaves the image as it is."""

STEPS = (0, 0, 0.5, 1, 2)
"""Of every period, the drift of the products that drift."""

GOOD_PERIODS = 2


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def predict(model: Hgad, images: Path, folder: Path) -> Path:
    run = engine(folder)
    run.predict(model, data_path=images, return_predictions=False)
    return Path(run.trainer.default_root_dir)


def monitored(periods: list[Path], checkpoint: Path, output: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of each product of ``monitor.csv``."""
    arguments = [*map(str, periods), "--ckpt_path", str(checkpoint), "--output", str(output)]
    assert cli.main(["monitor", *arguments]) == 0
    rows: dict[str, list[dict[str, str]]] = {}
    with (output / "monitor.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["product"], []).append(row)
    assert {len(of_product) for of_product in rows.values()} == {len(periods)}
    return rows


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Hgad, Path]:
    """A model of two drawn products, and the folder of its training."""
    root = tmp_path_factory.mktemp("demo")
    for name, kind in (("chip", "crack"), ("nut", "chip")):
        for number in range(40):
            save(root / "data" / name / f"train/good/{number}.png", render(name, "train", number)[0])
        for number in range(3):
            save(root / "data" / name / f"test/good/{number}.png", render(name, "test", number)[0])
            save(root / "data" / name / f"test/{kind}/{number}.png", np.full((256, 256, 3), 80 * number, np.uint8))
    model = Hgad(
        backbone=BACKBONE,
        backbone_weights=WEIGHTS,
        levels={layer: [1.0] for layer in LAYERS},
        calibration_share=0.3,
        visualizer=False,
    )
    run = engine(root)
    run.train(model, datamodule=MultiClass(root=root / "data", num_workers=0))
    return model, Path(run.trainer.default_root_dir)


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_of_one_product_is_seen_and_the_other_stays(
    demo: tuple[Hgad, Path], drift: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, run = demo
    periods = []
    for number, step in enumerate(STEPS):
        for part in range(12):
            index = 10 + 12 * number + part
            save(tmp_path / f"images/{number}/chip_{part}.png", DRIFTS[drift](render("chip", "test", index)[0], step))
            save(tmp_path / f"images/{number}/nut_{part}.png", render("nut", "test", index)[0])
        periods.append(predict(model, tmp_path / f"images/{number}", tmp_path / f"runs/{number}"))
    capsys.readouterr()
    rows = monitored(periods, run / CHECKPOINT, tmp_path / "monitor")
    assert [row["moved"] for row in rows["nut"]] == [""] * len(STEPS)
    moved = [row["moved"] for row in rows["chip"]]
    assert moved[:GOOD_PERIODS] == [""] * GOOD_PERIODS
    assert "less typical" in moved
    said = [line for line in capsys.readouterr().out.splitlines() if "less typical" in line]
    assert len(said) >= 1
    assert all("chip" in line for line in said)


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RealLine:
    """A model of 30 images each of two real products, the folder of its training, and 20 images that it did not see."""
    root = tmp_path_factory.mktemp("real")
    kept = {}
    for name in ("mvtec_hazelnut", "mvtec_transistor"):
        files = sorted((shared_data / "data" / name / "train/good").iterdir())
        images = [cv2.imread(str(files[number])) for number in np.random.default_rng(0).permutation(len(files))]
        for number, image in enumerate(images[:30]):
            save(root / "data" / name / f"train/good/{number}.png", image)
        for part in ("test", "ground_truth"):
            shutil.copytree(shared_data / "data" / name / part, root / "data" / name / part)
        kept[name] = images[30:50]
    weights = shared_data / "weights/resnet18_timm_stem_l123.safetensors"
    model = Hgad(backbone_weights=weights, calibration_share=0.4, visualizer=False)
    run = engine(root)
    run.train(model, datamodule=MultiClass(root=root / "data", num_workers=0))
    return model, Path(run.trainer.default_root_dir), kept


@pytest.mark.nightly
@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_of_a_real_product_is_seen_and_the_other_stays(real: RealLine, drift: str, tmp_path: Path) -> None:
    """The first two periods have ten images each, the others all of them, changed by more and more."""
    model, run, kept = real
    hazelnuts, transistors = kept.values()
    periods = []
    for number, (step, chosen) in enumerate(((0, range(10)), (0, range(10, 20)), (2, range(20)), (4, range(20)))):
        for index in chosen:
            save(tmp_path / f"images/{number}/hazelnut_{index}.png", DRIFTS[drift](hazelnuts[index], step))
            save(tmp_path / f"images/{number}/transistor_{index}.png", transistors[index])
        periods.append(predict(model, tmp_path / f"images/{number}", tmp_path / f"runs/{number}"))
    rows = monitored(periods, run / CHECKPOINT, tmp_path / "monitor")
    assert [row["moved"] for row in rows["mvtec_transistor"]] == [""] * 4
    moved = [row["moved"] for row in rows["mvtec_hazelnut"]]
    assert moved[:2] == ["", ""]
    assert moved[3] == "less typical"
