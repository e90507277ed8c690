# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the report on one page and of the decisions it is made from."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from matplotlib.figure import Figure

from anomalib_hgad import Hgad, MultiClass, cli
from anomalib_hgad.data.batch import UNKNOWN
from anomalib_hgad.evaluation.predictions import Prediction, read_predictions, write_predictions
from anomalib_hgad.models.hgad.novelty import NOVELTY_LIMIT
from anomalib_hgad.report import examples, figures
from anomalib_hgad.report.latents import Sample, project, sample_latents
from anomalib_hgad.report.run_files import CHECKPOINT, read_run
from tests.helpers import trees
from tests.helpers.light import LIGHT

CLASSES = ("bolt", "nut <b>&$x", "washer")
PHONE, DESKTOP = 500, 1280
"""Widths in pixels; a headless Chromium has no narrower window than that of a large phone."""


def train(folder: Path, data: Path, **settings: object) -> Path:
    engine = Engine(default_root_dir=folder, max_epochs=1, accelerator="cpu", enable_progress_bar=False, logger=False)
    datamodule = MultiClass(root=data, train_batch_size=4, eval_batch_size=4, num_workers=0)
    engine.train(Hgad(**(LIGHT | settings), seed=0, visualizer=False), datamodule=datamodule)
    return Path(engine.trainer.default_root_dir)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes with masks and one without, one with a name that is markup."""
    root = tmp_path_factory.mktemp("data")
    for name in CLASSES:
        trees.mvtec_class(root / name, masks=name != "washer")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return train(tmp_path_factory.mktemp("run"), data)


@pytest.fixture(scope="module")
def page(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    other = train(tmp_path_factory.mktemp("other"), data, prior="single_gaussian")
    assert cli.main(["report", str(run), "--compare", str(other)]) == 0
    return (run / "report.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Names and attributes of all elements, and whether each is closed."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_asks_for_nothing(page: str) -> None:
    elements = Elements(page)
    assert not elements.open
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in elements.found}
    for _, attributes in elements.found:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_names_are_text_not_markup(page: str) -> None:
    assert "nut &lt;b&gt;&amp;$x" in page
    assert "<b>&$x" not in page


def test_page_shows_every_part(page: str, run: Path) -> None:
    text = page.replace("\n", " ")
    for part in ("Classes", "Scores", "ROC curves", "Inferred classes", "Errors", "Log-likelihood of positions"):
        assert part in text
    assert page.count("<svg") == 5  # histograms, ROC, confusion, log-likelihoods, latent space
    assert page.count('class="card"') == 12
    assert 'alt="mask"' in page
    assert "no mask" in page
    for package in ("anomalib-hgad", "anomalib"):
        assert f"<dt>{package}</dt>" in page
    assert "<dt>coupling_blocks</dt><dd>2</dd>" in page
    threshold = read_run(run).threshold
    assert f"<dt>threshold</dt><dd>{threshold:.4g}</dd>" in page


def test_figures_of_the_page_are_those_of_the_test(page: str, run: Path) -> None:
    with (run / "results.csv").open(newline="", encoding="utf-8") as file:
        mean = next(row for row in csv.DictReader(file) if row["class"] == "mean")
    assert f"<b>{100 * float(mean['image_AUROC']):.1f} %</b>" in page


def test_one_class_of_a_plain_datamodule(data: Path, tmp_path: Path) -> None:
    """No labels, no class to infer: the page leaves out what there is not."""
    engine = Engine(default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", enable_progress_bar=False, logger=False)
    datamodule = MVTecAD(data, category="bolt", train_batch_size=4, eval_batch_size=4, num_workers=0)
    engine.train(Hgad(**LIGHT, seed=0, visualizer=False), datamodule=datamodule)
    run = Path(engine.trainer.default_root_dir)
    assert cli.main(["report", str(run), "--output", str(tmp_path / "pages/one.html")]) == 0
    text = (tmp_path / "pages/one.html").read_text(encoding="utf-8")
    assert "Hgad on 1 class:" in text
    assert "Inferred classes" not in text
    assert text.count("<svg") == 4


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_page_fits_the_window(page: str, width: int, tmp_path: Path) -> None:
    """In a real browser: nothing is wider than the window, and every picture is drawn."""
    if not (chromium := shutil.which("chromium")):
        pytest.skip("there is no chromium")
    script = """<script>addEventListener("load", () => {
        const drawn = [...document.images].filter(image => image.complete && image.naturalWidth > 0).length;
        document.body.dataset.seen = [document.documentElement.scrollWidth, innerWidth, drawn].join(" ");
    })</script>"""
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", script + "</body>"), encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    shown = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, check=True, timeout=120).stdout
    scroll_width, inner_width, drawn = map(int, re.search(r'data-seen="([\d ]+)"', shown)[1].split())
    assert inner_width == width
    assert scroll_width <= inner_width
    assert drawn == page.count("<img")


def test_decisions_of_a_test(run: Path, data: Path) -> None:
    rows = read_predictions(run)
    assert len(rows) == 12
    assert {row.class_name for row in rows} == set(CLASSES)
    for row in rows:
        assert Path(row.image_path).is_file()
        assert row.gt_label == ("/crack/" in row.image_path)
        assert (row.mask_path is not None) == (row.gt_label and row.class_name != "washer")
        assert row.pred_class_name in {*CLASSES, UNKNOWN}
        assert (row.pred_class_name == UNKNOWN) == (row.novelty > NOVELTY_LIMIT)
        assert 0 <= row.pred_score <= 1
        assert row.pred_label == (row.pred_score > 0.5)
    model = Hgad.load_from_checkpoint(run / CHECKPOINT)
    threshold = float(model.post_processor.image_threshold)
    assert [row.raw_score > threshold for row in rows] == [row.pred_label for row in rows]


def test_decisions_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        Prediction(
            image_path="a, b.png",
            mask_path=None,
            class_name=None,
            pred_class_name=None,
            gt_label=True,
            pred_label=None,
            pred_score=0.1 + 0.2,
            raw_score=None,
            novelty=None,
        ),
        Prediction(
            image_path='"c".png',
            mask_path="c_mask.png",
            class_name="bolt\nnut",
            pred_class_name="nut",
            gt_label=False,
            pred_label=True,
            pred_score=1.0,
            raw_score=-3.5,
            novelty=0.25,
        ),
    ]
    write_predictions(rows, tmp_path)
    assert read_predictions(tmp_path) == rows


def test_other_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected the columns image_path"):
        read_predictions(tmp_path)


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path)])
    assert "predictions.csv is missing" in capsys.readouterr().err


def test_images_that_are_gone(run: Path, tmp_path: Path) -> None:
    rows = read_predictions(run)
    shutil.copytree(run, tmp_path / "run")
    lost = [Prediction(**(vars(row) | {"image_path": f"/nowhere/{index}.png"})) for index, row in enumerate(rows)]
    write_predictions(lost, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"12 of 12 tested images are gone, such as /nowhere/0\.png"):
        read_run(tmp_path / "run")


def prediction(path: str, name: str, *, anomalous: bool, score: float) -> Prediction:
    return Prediction(path, None, name, name, anomalous, score > 0.5, score, score, 0.0)


def test_worst_errors_leave_room_for_other_classes() -> None:
    rows = [prediction(f"a{index}", "a", anomalous=True, score=index / 100) for index in range(8)]
    rows += [prediction("b0", "b", anomalous=True, score=0.9), prediction("a9", "a", anomalous=False, score=0.0)]
    assert [row.image_path for row in examples.worst(rows, anomalous=True)] == ["a0", "a1", "a2", "b0"]
    assert [row.image_path for row in examples.worst(rows, anomalous=False)] == ["a9"]


def test_anomalies_of_none_of_the_classes_have_a_curve(run: Path) -> None:
    """Three of four pairs of a normal and an anomalous image are in order."""
    rows = [prediction(f"n{index}", "cat", anomalous=False, score=index) for index in (0, 2)]
    rows += [prediction(f"a{index}", "dog", anomalous=True, score=index) for index in (1, 3)]
    of_cats = replace(read_run(run), predictions=rows, results={"classes": {"cat": {}, "owl": {}}})
    assert [len(group) for group in of_cats.groups.values()] == [2, 0, 4]
    curves = figures.roc_curves(of_cats.groups)
    assert "all images  75.0" in curves
    assert "cat  " not in curves


def test_latents_of_a_sample(run: Path) -> None:
    """Log-likelihoods against the model's own forward flow and density, of one image."""
    files = read_run(run)
    sample = sample_latents(files)
    assert len(sample.predictions) == len(sample.latents) == 12
    model = files.model
    row = sample.predictions[0]
    image = torch.from_numpy(np.array(examples.Image.open(row.image_path))).permute(2, 0, 1)[None] / 255
    features = model.model.encoder(model.pre_processor(image))
    latents = model.model.flows[0](features[0])
    assert torch.allclose(torch.from_numpy(sample.latents[0]), latents.z[0].mean(dim=0), atol=1e-5)
    assert torch.equal(torch.from_numpy(sample.centers), model.model.priors[0].class_centers)
    positions = features[0].shape[2] * features[0].shape[3]
    assert len(sample.normal) == 6 * positions
    # Positions are 8 x 8 pixels; of the 8 x 8 from (2, 2) the first covers 6 x 6, more than half, the next ones less.
    # Two classes have masks, two images each.
    assert len(sample.anomalous) == 2 * 2


def test_projection_keeps_the_two_directions_that_matter() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(20, 2)) @ np.array([[3.0, 0, 0, 0], [0, 2.0, 0, 0]])
    positions, centers = project(Sample([], plane[:17], plane[17:], np.empty(0), np.empty(0)))
    together = np.concatenate([positions, centers])
    distances = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    assert np.allclose(np.linalg.norm(together[:, None] - together[None], axis=-1), distances)


def test_histogram_has_shares_and_gathers_far_values() -> None:
    """Of 0 to 97, 1000 and 2000 the 0.98 quantile is 97 + 0.02 x 903 = 115.06: bars are 3.835 wide."""
    axis = Figure().subplots()
    figures._histogram(axis, np.arange(98.0), np.array([1000.0, 2000.0]))
    normal, anomalous = ([bar.get_height() for bar in bars] for bars in axis.containers)
    assert len(normal) == 30
    assert normal[:2] == pytest.approx([4 / 98, 4 / 98])  # 0 to 3, 4 to 7
    assert sum(normal) == pytest.approx(1)
    assert anomalous == pytest.approx([0] * 29 + [1])


def test_histogram_of_one_value_and_of_none() -> None:
    one = np.array([0.5])
    assert "<svg" in figures.histograms({"a": (one, one), "b": (np.empty(0), np.empty(0))}, "score", 0.5)
