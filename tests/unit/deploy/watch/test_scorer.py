# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a watch takes of a model, against scores computed by hand."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from anomalib_hgad.deploy.watch.scorer import Scorer, identity
from tests.helpers.drawn_models import brightness_model, plain_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brightness_model(tmp_path_factory.mktemp("model") / "model.xml")


def flat(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((5, 7, 3), (red, green, blue), dtype=np.uint8)


@pytest.mark.parametrize(
    ("colour", "verdict", "name", "scored_name"),
    [
        ((10, 20, 30), "good", "bolt", "bolt"),
        ((255, 255, 0), "bad", "nut", "nut"),
        ((0, 255, 255), "unknown", "unknown", "bolt"),
        ((0, 0, 200), "unknown", "unknown", "bolt"),
    ],
)
def test_verdict_class_and_numbers(
    model: Path, colour: tuple[int, int, int], verdict: str, name: str, scored_name: str
) -> None:
    scored = Scorer(model).score(flat(*colour), with_map=True)
    mean = sum(colour) / 3 / 255
    assert scored.verdict == verdict
    assert scored.values == {
        "pred_score": pytest.approx(mean, abs=1e-6),
        "pred_label": mean > 0.5,
        "novelty": pytest.approx(2 * colour[2] / 255, abs=1e-6),
        "pred_class_name": name,
        "scored_class_name": scored_name,
    }
    np.testing.assert_allclose(scored.anomaly_map, np.full((5, 7), mean), atol=1e-6)
    assert (scored.pred_mask == (mean > 0.5)).all()
    assert scored.pred_mask.shape == (5, 7)


def test_maps_are_left_where_nobody_asks_for_them(model: Path) -> None:
    scored = Scorer(model).score(flat(1, 2, 3), with_map=False)
    assert scored.anomaly_map is None
    assert scored.pred_mask is None


def test_many_threads_get_their_own_results(model: Path) -> None:
    """Results are in the memory of a request, which the next image overwrites."""
    scorer = Scorer(model, in_flight=8)
    pictures = [flat(value, value // 2, 0) for value in range(200)]
    with ThreadPoolExecutor(8) as pool:
        scored = list(pool.map(lambda pixels: scorer.score(pixels, with_map=True), pictures))
    expected = [(value + value // 2) / 3 / 255 for value in range(200)]
    np.testing.assert_allclose([one.values["pred_score"] for one in scored], expected, atol=1e-6)
    np.testing.assert_allclose([one.anomaly_map.mean() for one in scored], expected, atol=1e-6)


def test_model_without_a_threshold_gives_no_verdict(tmp_path: Path) -> None:
    scorer = Scorer(brightness_model(tmp_path / "model.xml", image_threshold=None))
    assert not scorer.has_threshold
    scored = scorer.score(flat(255, 255, 0), with_map=False)
    assert (scored.verdict, scored.values["pred_label"]) == (None, None)
    assert scorer.score(flat(0, 0, 255), with_map=False).verdict == "unknown"
    scorer = Scorer(brightness_model(tmp_path / "model.xml", pixel_threshold=None))
    scored = scorer.score(flat(255, 255, 0), with_map=True)
    assert (scored.verdict, scored.pred_mask) == ("bad", None)


def test_single_gaussian_of_several_classes_names_none(tmp_path: Path) -> None:
    scored = Scorer(brightness_model(tmp_path / "model.xml", class_tensor=None)).score(flat(0, 0, 255), with_map=False)
    assert (scored.verdict, scored.values["pred_class_name"]) == ("unknown", None)


def test_model_of_one_class_names_it(tmp_path: Path) -> None:
    path = brightness_model(tmp_path / "model.xml", class_tensor=None, class_names=["bolt"])
    assert Scorer(path).score(flat(0, 0, 0), with_map=False).values["pred_class_name"] == "bolt"


def test_model_of_another_package_has_neither_class_nor_novelty(tmp_path: Path) -> None:
    scored = Scorer(plain_model(tmp_path / "model.xml")).score(flat(255, 255, 0), with_map=True)
    assert scored.values == {"pred_score": pytest.approx(2 / 3), "pred_label": True}
    assert (scored.verdict, scored.anomaly_map, scored.pred_mask) == ("bad", None, None)


def test_image_of_another_size_than_the_model_takes_is_told(tmp_path: Path) -> None:
    scorer = Scorer(brightness_model(tmp_path / "model.xml", shape=(1, 3, 6, 7)))
    with pytest.raises(ValueError, match=r"accepts only images of shape \[1,3,6,7\], got \[1, 3, 5, 7\]"):
        scorer.score(flat(0, 0, 0), with_map=False)
    assert scorer.score(np.zeros((6, 7, 3), dtype=np.uint8), with_map=False).verdict == "good"


def test_model_that_takes_several_images_at_a_time_is_refused(tmp_path: Path) -> None:
    """At once, not in the line of every image."""
    with pytest.raises(ValueError, match=r"model\.xml accepts only batches of 2 images"):
        Scorer(brightness_model(tmp_path / "model.xml", shape=(2, 3, -1, -1)))


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("novelty_limit", None, "novelty_limit is None"),
        ("novelty_limit", math.nan, "novelty_limit is nan"),
        ("class_names", "bolt", "class_names is 'bolt'"),
        ("class_names", [], r"class_names is \[\]"),
        ("image_size", [32], r"image_size is \[32\]"),
        ("image_threshold", "0.5", "image_threshold is '0.5'"),
    ],
)
def test_metadata_that_were_changed_are_refused(tmp_path: Path, entry: str, value: object, said: str) -> None:
    path = brightness_model(tmp_path / "model.xml", **{entry: value})
    with pytest.raises(ValueError, match=rf"The metadata of .*model\.xml are not those of an export: {said}\. Export"):
        Scorer(path)


def test_class_without_a_name_is_told(tmp_path: Path) -> None:
    scorer = Scorer(brightness_model(tmp_path / "model.xml", class_names=["bolt"]))
    assert scorer.score(flat(0, 0, 0), with_map=False).values["pred_class_name"] == "bolt"
    with pytest.raises(ValueError, match="the metadata name 1 classes, and the graph infers class 1, counted from 0"):
        scorer.score(flat(255, 0, 0), with_map=False)


def test_score_that_is_no_number_is_told(tmp_path: Path) -> None:
    image = ops.parameter((-1, 3, -1, -1), np.float32)
    score = ops.divide(ops.reduce_mean(image, [1, 2, 3], keep_dims=False), ops.constant(np.float32(0)))
    score.output(0).tensor.set_names({"pred_score"})
    openvino.save_model(openvino.Model([ops.result(score)], [image]), tmp_path / "model.xml")
    with pytest.raises(ValueError, match="the model returns the score inf"):
        Scorer(tmp_path / "model.xml").score(flat(9, 9, 9), with_map=False)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected an exported \.xml or \.onnx file, got .*model\.ckpt"):
        Scorer(tmp_path / "model.ckpt")
    with pytest.raises(FileNotFoundError, match=r"No file at .*model\.xml"):
        Scorer(tmp_path / "model.xml")
    (tmp_path / "model.xml").write_text("<html>")
    with pytest.raises(ValueError, match=r"model\.xml cannot be used by OpenVINO: "):
        Scorer(tmp_path / "model.xml")
    parameter = ops.parameter([1, 3], np.float32)
    openvino.save_model(openvino.Model([ops.relu(parameter)], [parameter]), tmp_path / "other.xml")
    with pytest.raises(ValueError, match=r"other\.xml has no output pred_score: expected an anomaly model"):
        Scorer(tmp_path / "other.xml")
    with pytest.raises(ValueError, match="on the device TOASTER"):
        Scorer(plain_model(tmp_path / "plain.xml"), "TOASTER")


def test_identity_is_that_of_graph_and_weights(tmp_path: Path) -> None:
    path = plain_model(tmp_path / "model.xml")
    before = identity(path)
    assert identity(path) == before
    path.with_suffix(".bin").write_bytes(path.with_suffix(".bin").read_bytes() + b" ")
    assert identity(path) != before
