# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds of classes whose normal images spread differently, from the training to exported graphs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from PIL import Image
from scipy.stats import betabinom

from anomalib_hgad import Hgad, MultiClass, NormalPostProcessor, UniAd
from anomalib_hgad.data.reserved_names import MEAN
from anomalib_hgad.evaluation.predictions import Prediction, read_predictions
from anomalib_hgad.models.hgad import calibration
from anomalib_hgad.models.hgad.calibration import location_and_spread
from anomalib_hgad.report.command import report
from anomalib_hgad.report.run_files import CHECKPOINT, read_run
from anomalib_hgad.report.thresholds import threshold_rows
from tests.helpers.engines import engine
from tests.helpers.exports import from_onnx, from_openvino
from tests.helpers.light import LIGHT, LIGHT_UNIAD

pytestmark = pytest.mark.slow

RATE = 0.2
CLASSES = ["bolt", "nut"]
NORMAL_TEST_IMAGES = 150
SETTINGS: dict[str, Any] = LIGHT | {
    "flow": "linear",
    "flow_arguments": None,
    "covariance": "full",
    "score": "contrast",
    "levels": {"layer1": [1.0]},
    "seed": 0,
    "visualizer": False,
}


class Run(NamedTuple):
    """A training and its test.

    Attributes:
        model: The model.
        folder: Folder of the run.
        data: What it was trained and tested on.
    """

    model: Hgad
    folder: Path
    data: MultiClass

    @property
    def rows(self) -> list[Prediction]:
        return read_predictions(self.folder)

    @property
    def threshold(self) -> float:
        return float(self.model.post_processor.image_threshold)

    @property
    def shifts(self) -> dict[str, float]:
        return dict(
            zip(self.model.class_names, self.model.model.calibration.class_thresholds.shift.tolist(), strict=True)
        )


def write(path: Path, rng: np.random.Generator, dark: bool, defect: bool) -> None:
    pixels = rng.normal(size=(32, 32, 3)) * 10 + 100
    if defect:
        pixels[4:20, 4:20] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels / (1 + dark)).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bolts, and nuts that are darker."""
    root = tmp_path_factory.mktemp("thresholds") / "plant"
    rng = np.random.default_rng(0)
    for name in CLASSES:
        for folder, count in (("train/good", 120), ("test/good", NORMAL_TEST_IMAGES), ("test/crack", 4)):
            for number in range(count):
                write(root / name / folder / f"{number:03}.png", rng, name == "nut", folder == "test/crack")
    return root


def plant(root: Path) -> MultiClass:
    return MultiClass(
        root=root,
        train_batch_size=16,
        eval_batch_size=16,
        num_workers=0,
        val_split_mode="from_train",
        val_split_ratio=0.5,
        seed=0,
    )


def trained_and_tested(root: Path, folder: Path, post_processor: NormalPostProcessor, **settings: Any) -> Run:
    model, datamodule, run = Hgad(**SETTINGS | settings, post_processor=post_processor), plant(root), engine(folder)
    run.train(model, datamodule=datamodule)
    return Run(model, Path(run.trainer.default_root_dir), datamodule)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with mock.patch.object(calibration, "location_and_spread", misjudged):
        return trained_and_tested(data, tmp_path_factory.mktemp("own"), NormalPostProcessor(RATE, each_class=True))


@pytest.fixture(scope="module")
def common(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with mock.patch.object(calibration, "location_and_spread", misjudged):
        return trained_and_tested(data, tmp_path_factory.mktemp("common"), NormalPostProcessor(RATE))


def misjudged(scores: Sequence[torch.Tensor], common: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Location and spread of the classes, of the second one too low and too small, as a few images may have them."""
    location, spread = location_and_spread(scores, common)
    return location - spread * torch.tensor([0.0, 2.0]), spread * torch.tensor([1.0, 0.3])


def numpy_threshold(scores: np.ndarray, rate: float) -> float:
    """The k-th smallest, k = ceil((n + 1)(1 - rate))."""
    return float(np.sort(scores)[math.ceil(round((len(scores) + 1) * (1 - rate), 9)) - 1])


@torch.no_grad()
def validation_scores(run: Run, given: bool = False) -> dict[str, np.ndarray]:
    """Of the validation images by the class that scores them, before any shift."""
    model, scores = run.model, {name: [] for name in run.model.class_names}
    for batch in run.data.val_dataloader():
        class_index = torch.tensor([model.class_names.index(name) for name in batch.class_name])
        inferred, of_given = model.eval().model.predict(model.pre_processor.transform(batch.image), class_index)
        index = class_index if given else inferred.class_posterior.argmax(dim=-1)
        shifted = (of_given if given else inferred).pred_score
        unshifted = shifted - model.model.calibration.class_thresholds.shift[index]
        for name, score in zip(index.tolist(), unshifted.tolist(), strict=True):
            scores[model.class_names[name]].append(score)
    return {name: np.array(values) for name, values in scores.items()}


def check_thresholds(run: Run, rate: float = RATE, given: bool = False) -> None:
    """All of the model's and the post-processor's against NumPy."""
    scores = validation_scores(run, given)
    assert run.threshold == pytest.approx(numpy_threshold(np.concatenate([*scores.values()]), rate), abs=1e-4)
    for name, of_class in scores.items():
        assert run.threshold - run.shifts[name] == pytest.approx(numpy_threshold(of_class, rate), abs=1e-4), name
    thresholds = run.model.model.calibration.class_thresholds
    assert thresholds.images.tolist() == [len(of_class) for of_class in scores.values()]
    assert thresholds.rate.tolist() == pytest.approx([rate] * len(scores))


def alarms_at(run: Run, name: str, shift: float = 0.0) -> tuple[int, int]:
    """Normal test images of a class whose scores, less a shift, are above the threshold, and how many there are."""
    scores = np.array([row.raw_score for row in run.rows if not row.gt_label and row.scored_class_name == name])
    return int(np.sum(scores - shift > run.threshold)), len(scores)


def is_plausible(alarms: int, new: int, validated: int, rate: float) -> bool:
    """Whether so many of new images, of the source of those that were validated on, are above the k-th of these.

    The share of the source that is above it has a beta distribution, and the number of new images a beta-binomial one.
    """
    above = math.floor(round((validated + 1) * rate, 9))  # validated + 1 - k
    low, high = betabinom.ppf([0.001, 0.999], new, above, validated + 1 - above)
    return bool(low <= alarms <= high)


def test_thresholds_are_those_of_the_classes_scores(run: Run) -> None:
    check_thresholds(run)
    assert min(run.model.model.calibration.class_thresholds.images.tolist()) > 50
    assert max(map(abs, run.shifts.values())) > 0.1


def test_rate_of_each_class_holds_where_that_of_the_one_threshold_does_not(run: Run) -> None:
    images = run.model.model.calibration.class_thresholds.images.tolist()
    at_the_common_one = []
    for name, validated in zip(CLASSES, images, strict=True):
        alarms, new = alarms_at(run, name)
        assert new >= 0.98 * NORMAL_TEST_IMAGES
        assert is_plausible(alarms, new, validated, RATE), (name, alarms)
        alarms, _ = alarms_at(run, name, run.shifts[name])
        at_the_common_one.append(is_plausible(alarms, new, validated, RATE))
    assert not all(at_the_common_one)


def test_labels_are_those_of_the_classes_thresholds(run: Run) -> None:
    for row in run.rows:
        assert row.pred_label == (row.raw_score > run.threshold)
        assert row.scored_class_name == row.class_name or row.gt_label
    assert {row.pred_label for row in run.rows if row.gt_label} == {True}


def test_results_have_the_rates_that_the_decisions_have(run: Run) -> None:
    results = json.loads((run.folder / "results.json").read_text())
    rates = [alarms_at(run, name)[0] / NORMAL_TEST_IMAGES for name in CLASSES]
    assert [results["classes"][name]["FalseAlarmRate"] for name in CLASSES] == pytest.approx(rates)
    assert results[MEAN]["FalseAlarmRate"] == pytest.approx(np.mean(rates))
    assert "FalseAlarmRate" in (run.folder / "results.csv").read_text().splitlines()[0]


def test_without_them_scores_are_the_same_bit_for_bit(run: Run, common: Run) -> None:
    """And with them maps are; the scores are shifted."""
    assert not any(common.shifts.values())
    assert common.threshold == run.threshold
    images = torch.stack([run.data.test_data[row].image for row in range(0, len(run.data.test_data), 20)])
    (own, _), (plain, _) = (
        each.model.eval().model.predict(each.model.pre_processor.transform(images)) for each in (run, common)
    )
    assert torch.equal(own.anomaly_map, plain.anomaly_map)
    classes = plain.class_posterior.argmax(dim=-1)
    assert set(classes.tolist()) == {0, 1}
    shift = run.model.model.calibration.class_thresholds.shift[classes]
    assert torch.equal(own.pred_score, plain.pred_score + shift)
    assert not torch.equal(own.pred_score, plain.pred_score)


def test_report_says_whether_each_rate_holds(run: Run, common: Run) -> None:
    """The rate and the numbers of images are those of the checkpoint, whose post-processor is a plain one."""
    for each in (run, common):
        rows = threshold_rows(read_run(each.folder))
        assert [row.name for row in rows] == CLASSES
        for row in rows:
            shift = each.shifts[row.name]
            assert row.rate == RATE
            assert row.images == each.model.model.calibration.class_thresholds.images[CLASSES.index(row.name)]
            assert (row.threshold, row.common) == pytest.approx((each.threshold - shift, each.threshold))
            assert (row.alarms, row.normal) == alarms_at(each, row.name)
            assert (row.common_alarms, row.normal) == alarms_at(each, row.name, shift)
    page = report(run.folder).read_text(encoding="utf-8")
    assert "Every class has its own threshold" in page
    for row in threshold_rows(read_run(run.folder)):
        assert f"<td>{row.alarms} of {row.normal}</td>" in page


def test_test_of_a_checkpoint_decides_the_same(run: Run, data: Path, tmp_path: Path) -> None:
    loaded, again = Hgad(**SETTINGS | {"seed": None}), engine(tmp_path)
    assert type(loaded.post_processor) is not NormalPostProcessor
    again.test(loaded, datamodule=plant(data), ckpt_path=run.folder / CHECKPOINT)
    found = read_predictions(Path(again.trainer.default_root_dir))
    assert [(row.raw_score, row.pred_label, row.scored_class_name) for row in found] == [
        (row.raw_score, row.pred_label, row.scored_class_name) for row in run.rows
    ]


@pytest.mark.nightly
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_exported_graphs_decide_the_same(run: Run, form: str, tmp_path: Path) -> None:
    """But for images within rounding of the threshold, which is at 0.5."""
    path = run.model.to_onnx(tmp_path) if form == "onnx" else run.model.to_openvino(tmp_path)
    predict = from_onnx(path) if form == "onnx" else from_openvino(path)
    compared = [row for row in run.rows if abs(row.pred_score - 0.5) > 1e-4]
    assert len(compared) > 0.95 * len(run.rows)
    outputs = [predict(read_image(row.image_path, as_tensor=True).unsqueeze(0).numpy()) for row in compared]
    for row, output in zip(compared, outputs, strict=True):
        assert output["pred_score"].item() == pytest.approx(row.pred_score, abs=5e-5)
        assert bool(output["pred_label"].item()) == row.pred_label
    assert len({(row.scored_class_name, row.pred_label) for row in compared}) == 4


def test_validations_forget_earlier_thresholds(run: Run, tmp_path: Path) -> None:
    """By the same post-processor, by one of another rate, and by anomalib's own, which has one for all classes."""
    model = Hgad.load_from_checkpoint(
        run.folder / CHECKPOINT, post_processor=NormalPostProcessor(RATE, each_class=True)
    )
    again = Run(model, run.folder, run.data)
    assert again.shifts == run.shifts
    for _ in range(2):
        engine(tmp_path).validate(model, datamodule=run.data)
        assert again.shifts == run.shifts
        assert again.threshold == run.threshold
    model = Hgad.load_from_checkpoint(run.folder / CHECKPOINT, post_processor=NormalPostProcessor(0.5, each_class=True))
    engine(tmp_path).validate(model, datamodule=run.data)
    check_thresholds(Run(model, run.folder, run.data), rate=0.5)
    model = Hgad.load_from_checkpoint(run.folder / CHECKPOINT)
    engine(tmp_path).validate(model, datamodule=run.data)
    assert not any(Run(model, run.folder, run.data).shifts.values())
    assert not model.model.calibration.class_thresholds.rate.any()


def test_resumed_training_chooses_thresholds_of_scores_that_are_not_shifted(data: Path, tmp_path: Path) -> None:
    """Of every epoch, whose validation begins with those of the epoch before."""
    settings = SETTINGS | {name: LIGHT[name] for name in ("flow", "flow_arguments", "covariance", "score")}
    datamodule = plant(data)

    def model() -> Hgad:
        return Hgad(**settings, post_processor=NormalPostProcessor(RATE, each_class=True))

    first = engine(tmp_path, max_epochs=2)
    first.fit(model(), datamodule=datamodule)
    resumed = model()
    engine(tmp_path, max_epochs=3).fit(resumed, datamodule=datamodule, ckpt_path=first.best_model_path)
    check_thresholds(Run(resumed, tmp_path, datamodule))
    assert max(map(abs, Run(resumed, tmp_path, datamodule).shifts.values())) > 0.01


def test_classes_that_are_given_have_thresholds_of_their_images(data: Path, tmp_path: Path) -> None:
    settings = {"class_source": "given", "covariance": "identity", "flow": "cflow", "score": "sum"}
    settings["flow_arguments"] = LIGHT["flow_arguments"]
    found = trained_and_tested(data, tmp_path, NormalPostProcessor(RATE, each_class=True), **settings)
    check_thresholds(found, given=True)
    assert found.model.model.calibration.class_thresholds.images.tolist() == [60, 60]
    assert {row.scored_class_name == row.class_name for row in found.rows} == {True}


def test_model_that_cannot_is_refused_before_the_first_image(data: Path, tmp_path: Path) -> None:
    model = UniAd(**LIGHT_UNIAD, post_processor=NormalPostProcessor(RATE, each_class=True))
    with pytest.raises(ValueError, match="expected Hgad, or each_class=False, got UniAd"):
        engine(tmp_path).fit(model, datamodule=plant(data))


@pytest.mark.nightly
def test_rates_of_real_products(shared_data: Path, tmp_path: Path) -> None:
    rate = 0.2
    settings = {
        "backbone": "resnet18",
        "backbone_weights": shared_data / "weights/resnet18_timm_stem_l123.safetensors",
        "levels": {"layer2": [1.0]},
        "image_size": 128,
        "score_share": 0.03,
    }
    post_processor = NormalPostProcessor(rate, each_class=True)
    found = trained_and_tested(shared_data / "data", tmp_path, post_processor, **settings)
    check_thresholds(found, rate)
    rows = threshold_rows(read_run(found.folder))
    assert len(rows) == len(found.model.class_names) == 5
    assert all(row.images >= 10 for row in rows)
    told = {row.name: row.verdict for row in rows if row.normal >= 4}
    assert len(told) == 3
    for row in rows:
        assert is_plausible(row.alarms, row.normal, row.images, rate), row
    assert "does not hold" not in told.values()
