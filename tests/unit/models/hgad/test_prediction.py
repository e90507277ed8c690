# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a model says of a batch becomes the batch's fields."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anomalib_hgad.data.batch import ClassImageBatch
from anomalib_hgad.models.hgad.prediction import predict_batch
from anomalib_hgad.models.hgad.torch_model import HgadPrediction

NOVELTY = (0.2, 0.999, 1.0, 1.001, 9.0)
INFERRED = (0.0, 1.0, 2.0, 3.0, 4.0)
GIVEN = (10.0, 11.0, 12.0, 13.0, 14.0)
CLASSES = (1, 0, 1, 0, 0)


def prediction(scores: tuple[float, ...]) -> HgadPrediction:
    """Maps that are flat but for their largest value, and a posterior of 0.9 for the inferred class."""
    values = torch.tensor(scores)
    maps = values.view(-1, 1, 1, 1) - torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    posterior = torch.tensor([[0.1, 0.9] if index else [0.9, 0.1] for index in CLASSES])
    return HgadPrediction(values, maps, posterior, torch.tensor(NOVELTY))


class Oracle:
    """A model of two classes that says what is written down."""

    num_classes = 2

    def mixture_class_index(self, class_index: torch.Tensor) -> torch.Tensor:
        return class_index

    def encoder(self, images: torch.Tensor) -> list[torch.Tensor]:
        return []

    def read(self, features: list[torch.Tensor]) -> list[Any]:
        return []

    def predict_readings(self, readings: list[Any], size: torch.Size, class_index: torch.Tensor | None = None) -> Any:
        assert size == (2, 2)
        assert class_index is None or (class_index >= 0).all()  # -1 is no class to look up
        return prediction(INFERRED), None if class_index is None else prediction(GIVEN)


def predicted(
    class_index: list[int] | None,
    source: str = "inferred",
    names: tuple[str, ...] = ("bolt", "nut"),
    limit: float | None = None,
) -> ClassImageBatch:
    batch = ClassImageBatch(image=torch.zeros(5, 3, 2, 2))
    classes = None if class_index is None else torch.tensor(class_index)
    predict_batch(Oracle(), batch, classes, names, source, limit, known_defects={})
    return batch


def test_image_of_novelty_above_one_is_called_unknown() -> None:
    batch = predicted(None)
    assert batch.pred_class_name == ["nut", "bolt", "nut", "unknown", "unknown"]
    assert batch.pred_class_index.tolist() == list(CLASSES)
    assert batch.novelty.tolist() == pytest.approx(NOVELTY)


def test_other_number_of_classes_is_named_nothing() -> None:
    batch = predicted(None, names=("bolt", "nut", "gear"))
    assert batch.pred_class_name is None
    assert batch.pred_class_index is None
    assert batch.scored_class_index.tolist() == list(CLASSES)
    assert batch.scored_class_name is None
    assert batch.pred_score.tolist() == list(INFERRED)


@pytest.mark.parametrize(
    ("class_index", "source", "expected"),
    [
        (None, "inferred", INFERRED),
        (None, "given", INFERRED),
        ([0, 0, 1, 1, 0], "inferred", INFERRED),
        ([0, 0, 1, 1, 0], "given", GIVEN),
    ],
)
def test_decision_is_of_the_class_that_is_asked_for_where_it_is_known(
    class_index: list[int] | None, source: str, expected: tuple[float, ...]
) -> None:
    batch = predicted(class_index, source)
    assert batch.pred_score.tolist() == list(expected)
    assert batch.raw_score.tolist() == list(expected)
    assert batch.anomaly_map.amax(dim=(-2, -1)).flatten().tolist() == list(expected)
    assert batch.class_inferred_score.tolist() == list(INFERRED)
    assert batch.class_inferred_map.shape == (5, 2, 2)
    given = None if batch.class_given_score is None else batch.class_given_score.tolist()
    assert given == (None if class_index is None else list(GIVEN))


def test_image_of_no_class_is_scored_under_the_inferred_one() -> None:
    batch = predicted([0, -1, 1, -1, 0], "given")
    expected = [10.0, 1.0, 12.0, 3.0, 14.0]
    assert batch.pred_score.tolist() == expected
    assert batch.class_given_score.tolist() == expected
    assert batch.class_given_map.amax(dim=(-2, -1)).tolist() == expected


@pytest.mark.parametrize(
    ("source", "expected"), [("inferred", list(CLASSES)), ("given", [0, CLASSES[1], 1, CLASSES[3], 0])]
)
def test_class_that_an_image_is_scored_under_is_told(source: str, expected: list[int]) -> None:
    """Of images that are called unknown, too."""
    batch = predicted([0, -1, 1, -1, 0], source)
    assert batch.scored_class_index.tolist() == expected
    assert batch.scored_class_name == [("bolt", "nut")[index] for index in expected]


@pytest.mark.parametrize(("source", "shift"), [("inferred", 0.0), ("given", 10.0)])
def test_pixels_above_the_limit_are_marked(source: str, shift: float) -> None:
    """Of the map that is the decision: a map of an image with the score s has the pixels s, s - 1, s - 1, s - 1."""
    batch = predicted([0, 0, 1, 1, 0], source, limit=1.0)
    expected = [[(score + shift - drop) > 1 for drop in (0.0, 1.0, 1.0, 1.0)] for score in INFERRED]
    assert batch.limit_mask.dtype == torch.bool
    assert batch.limit_mask.shape == (5, 2, 2)
    assert batch.limit_mask.flatten(1).tolist() == expected
    if source == "inferred":
        assert batch.limit_mask.any(dim=(1, 2)).tolist() == [False, False, True, True, True]


def test_without_known_defects_no_kind_is_named() -> None:
    assert predicted(None).defect_kind is None


def test_without_a_limit_no_pixel_is_marked() -> None:
    assert predicted([0, 0, 1, 1, 0]).limit_mask is None
