# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of normal images beside themselves with synthetic anomalies."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from anomalib_hgad import MultiClass
from anomalib_hgad.data.synthetic_anomalies import SyntheticAnomalies
from tests.helpers import trees


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> SyntheticAnomalies:
    root = tmp_path_factory.mktemp("data")
    trees.mvtec_class(root / "bolt", train=5)
    datamodule = MultiClass(root=root, num_workers=0)
    datamodule.setup()
    return SyntheticAnomalies(datamodule.train_data, [0, 2, 4])


def test_normal_images_come_first_and_are_as_they_were(images: SyntheticAnomalies) -> None:
    assert len(images) == 6
    for index in range(3):
        item, original = images[index], images.images[2 * index]
        assert torch.equal(item.image, original.image)
        assert not item.gt_label
        assert item.gt_mask.shape == item.image.shape[1:]
        assert not item.gt_mask.any()


def test_anomalies_are_within_their_masks(images: SyntheticAnomalies) -> None:
    for index in range(3):
        normal, anomalous = images[index], images[3 + index]
        assert anomalous.gt_label
        assert anomalous.gt_mask.any()
        changed = (anomalous.image != normal.image).any(dim=0)
        assert changed.any()
        assert not (changed & ~anomalous.gt_mask).any()


def test_an_image_has_the_same_anomaly_whenever_it_is_read(images: SyntheticAnomalies) -> None:
    first = images[4]
    torch.rand(7), np.random.rand(7), random.random()
    again = SyntheticAnomalies(images.images, [2])[1]
    assert torch.equal(again.image, first.image)
    assert torch.equal(again.gt_mask, first.gt_mask)
    assert not torch.equal(images[5].gt_mask, first.gt_mask)


def test_random_numbers_of_others_are_left_alone(images: SyntheticAnomalies) -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(1)), float(np.random.rand()), random.random()

    def seed() -> None:
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)

    seed()
    expected = draw()
    seed()
    SyntheticAnomalies(images.images, [0])[1]
    assert draw() == expected


def test_items_are_batched_with_their_classes(images: SyntheticAnomalies) -> None:
    batch = images.collate_fn([images[0], images[3]])
    assert batch.class_name == ["bolt", "bolt"]
    assert batch.gt_label.tolist() == [False, True]
    assert batch.gt_mask.shape == (2, *trees.SIZE)
