# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Two processes do together what one does alone."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from anomalib_hgad.common.processes import are_repeated
from anomalib_hgad.evaluation.predictions import PREDICTED_FILE, read_table
from anomalib_hgad.models.hgad.pixel_limits import PATCHES_OF_IMAGE
from tests.helpers import trees
from tests.helpers.ddp_run import run
from tests.helpers.paths import ROOT

TRAINING_IMAGES = 16
HELD_OUT_IMAGES = 3
"""Two of nine and one of seven: a fifth each."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs ``one`` and ``two``; no number of images is even."""
    folder = tmp_path_factory.mktemp("ddp")
    trees.mvtec_class(folder / "data/bolt", train=9, good=3, bad=4)
    trees.mvtec_class(folder / "data/nut", train=7, good=2, bad=2, masks=False)
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.helpers.ddp_run", folder / "two", "2"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PL_DISABLE_FORK": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    run(folder / "one", 1)
    return folder


def losses(folder: Path) -> list[dict[str, float]]:
    with next(folder.rglob("metrics.csv")).open() as file:
        return [
            {name: float(value) for name, value in row.items() if name.endswith("_step") and value}
            for row in csv.DictReader(file)
            if row["train_loss_step"]
        ]


@pytest.mark.slow
@pytest.mark.subprocess
def test_losses_are_those_of_one_process(folder: Path) -> None:
    one, two = losses(folder / "one"), losses(folder / "two")
    assert len(one) == len(two) == 6
    assert {len(row) for row in one} == {6}
    for expected, actual in zip(one, two, strict=True):
        assert actual == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.subprocess
def test_weights_and_constants_are_those_of_one_process_and_equal_in_both(folder: Path) -> None:
    one = torch.load(folder / "one/state_0.pt")
    assert any(name.startswith("model.calibration") for name in one)
    for rank in range(2):
        two = torch.load(folder / f"two/state_{rank}.pt")
        for name, tensor in one.items():
            if name.startswith("model."):
                torch.testing.assert_close(two[name], tensor, rtol=2e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.subprocess
def test_figures_are_those_of_one_process(folder: Path) -> None:
    """Of 11 images the second process is given one a second time."""
    one, two = (json.loads((folder / name / "figures.json").read_text()) for name in ("one", "two"))
    assert set(one) == set(two)
    right = 11 * two["ClassAccuracy_pooled"]
    assert right == pytest.approx(round(right), abs=1e-4)
    for name, figure in one.items():
        # anomalib's thresholds, which F1 depends on, count the image twice; pixels of almost equal scores may change
        # places.
        if "F1Score" not in name:
            assert two[name] == pytest.approx(figure, abs=5e-3 if "pixel" in name else 1e-4), name


@pytest.mark.slow
@pytest.mark.subprocess
def test_predictions_are_those_of_one_process(folder: Path) -> None:
    """Of 11 images the first process predicts six and the second one five."""
    one, two = (
        {row.image_path: row for row in read_table(next((folder / name).rglob(PREDICTED_FILE)))}
        for name in ("one", "two")
    )
    assert len(one) == 11
    assert set(one) == set(two)
    for path, row in one.items():
        assert two[path].pred_class_name == row.pred_class_name
        assert two[path].raw_score == pytest.approx(row.raw_score, rel=1e-3, abs=1e-3)


@pytest.mark.slow
@pytest.mark.subprocess
def test_each_process_computes_its_share(folder: Path) -> None:
    for name, processes in (("one", 1), ("two", 2)):
        counts = [json.loads(path.read_text()) for path in sorted((folder / name).glob("counts_*.json"))]
        assert len(counts) == processes
        blank = 1  # an empty image tells the shapes
        # Every process has those with patches, of one image that is held out of each class.
        own = TRAINING_IMAGES // processes + HELD_OUT_IMAGES * PATCHES_OF_IMAGE
        assert [count["read"] for count in counts] == [own] * processes
        assert [count["encoded"] for count in counts] == [own + blank] * processes
        assert len(list((folder / name / "cache").iterdir())) == processes


@pytest.mark.parametrize(("images", "processes"), [(11, 2), (10, 2), (7, 4), (2, 4), (9, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_image_counts_once(images: int, processes: int, batch: int) -> None:
    data = list(range(images))
    counted = []
    for rank in range(processes):
        sampler = torch.utils.data.DistributedSampler(data, processes, rank, shuffle=False)
        loader = torch.utils.data.DataLoader(data, batch, sampler=sampler)
        seen = 0
        for values in loader:
            repeated = are_repeated(loader, seen, len(values))
            counted += [value for value, again in zip(values.tolist(), repeated, strict=True) if not again]
            seen += len(values)
    assert sorted(counted) == data
