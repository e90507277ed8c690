# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of normal images with patches of their own in other places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from anomalib_hgad import MultiClass
from anomalib_hgad.data.pasted_patches import AREA, LEAST_CHANGE, PastedPatches, paste
from tests.helpers import trees


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> PastedPatches:
    root = tmp_path_factory.mktemp("data")
    trees.mvtec_class(root / "bolt", train=5, size=(48, 40))
    datamodule = MultiClass(root=root, num_workers=0)
    datamodule.setup()
    return PastedPatches(datamodule.train_data, [0, 4], copies=3)


def test_copies_of_an_image_follow_one_another_each_with_another_patch(images: PastedPatches) -> None:
    assert len(images) == 6
    for first, row in ((0, 0), (3, 4)):
        original = images.images[row].image
        masks = [images[index].gt_mask for index in range(first, first + 3)]
        assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 3
        for index, mask in zip(range(first, first + 3), masks, strict=True):
            changed = (images[index].image - original).abs().amax(dim=0) > LEAST_CHANGE
            assert torch.equal(changed, mask.bool())
            assert images[index].gt_label
            assert images[index].class_name == "bolt"


def test_an_image_has_the_same_patch_whenever_it_is_read(images: PastedPatches) -> None:
    again = PastedPatches(images.images, [4], copies=2)[1]
    assert torch.equal(again.image, images[4].image)
    assert torch.equal(again.gt_mask, images[4].gt_mask)


def test_items_are_batched_with_their_classes(images: PastedPatches) -> None:
    batch = images.collate_fn([images[0], images[3]])
    assert batch.class_name == ["bolt", "bolt"]
    assert batch.gt_mask.shape == (2, 40, 48)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.tuples(st.integers(8, 90), st.integers(8, 90)))
def test_patch_is_one_rectangle_of_its_share(seed: int, size: tuple[int, int]) -> None:
    """Outside of it nothing changes; values stay in [0, 1]; the input stays as it was."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.random((3, *size)))
    before = image.clone()
    changed, mask = paste(image, rng)
    assert torch.equal(image, before)
    assert changed.min() >= 0
    assert changed.max() <= 1
    rows, columns = np.nonzero((changed != image).any(dim=0).numpy())
    assert mask.any()
    box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert box <= max(AREA[1] * np.prod(size), 2 * max(size))


def test_patch_comes_from_the_image() -> None:
    """A white spot on grey is there once, twice or, where grey covers it, no more; nothing else gets white."""
    image = torch.full((3, 64, 64), 0.5)
    image[:, 20:24, 30:34] = 1.0
    pasted = [paste(image, np.random.default_rng(seed)) for seed in range(200)]
    spots = [label((changed.amin(dim=0) > 0.8).numpy())[1] for changed, _ in pasted]
    assert set(spots) <= {0, 1, 2}
    assert 2 in spots


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_patch_of_an_even_image_differs_in_brightness(value: float) -> None:
    image = torch.full((3, 40, 40), value)
    changed, mask = paste(image, np.random.default_rng(0))
    assert ((changed - image).abs().amax(dim=0) > LEAST_CHANGE).equal(mask)
    assert mask.any()


def test_image_that_cannot_change_is_left_alone_with_an_empty_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalib_hgad.data.pasted_patches.BRIGHTNESS", 0.0)
    image = torch.full((3, 40, 40), 0.5)
    changed, mask = paste(image, np.random.default_rng(0))
    assert torch.equal(changed, image)
    assert mask.shape == (40, 40)
    assert not mask.any()


def test_every_real_image_changes(shared_data: Path) -> None:
    datamodule = MultiClass(root=shared_data / "data", num_workers=0)
    datamodule.setup()
    patches = PastedPatches(datamodule.train_data, [0, 100, 200], copies=4)
    assert all(item.gt_mask.any() for item in (patches[index] for index in range(len(patches))))
