# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the dataset of many classes and of its batches."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import pytest
import torch
from anomalib.data import FolderDataset
from anomalib.data.utils import random_split
from lightning.fabric.utilities.data import _replace_dunder_methods
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSamplerWrapper
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.data import _update_dataloader
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler
from torchvision.transforms.v2 import Resize

from anomalib_hgad.data.dataset import ClassPart, MaskBatchSampler, MultiClassDataset
from anomalib_hgad.data.hold_out import hold_out
from tests.helpers import trees


@pytest.fixture
def dataset(tmp_path: Path) -> MultiClassDataset:
    """Two classes with masks and one without between them, four normal and two anomalous images each."""
    parts = []
    for index, (name, masks) in enumerate({"bolt": True, "nut": False, "zip": True}.items()):
        root = trees.folder_class(tmp_path / name, good=4, bad=2, masks=masks)
        folder = FolderDataset(name, "good", root=root, abnormal_dir="bad", mask_dir="masks" if masks else None)
        parts.append(ClassPart(index, name, folder, masks))
    return MultiClassDataset(parts)


def folders(dataset: MultiClassDataset) -> list[str]:
    """The class folder of each item's image."""
    return [Path(item.image_path).parts[-3] for item in dataset]


def check_classes(dataset: MultiClassDataset) -> None:
    """Check that the class of each item is its image's folder."""
    for item, folder in zip(dataset, folders(dataset), strict=True):
        assert item.class_name == folder
        assert item.class_index == ["bolt", "nut", "zip"].index(folder)
        assert item.class_index.dtype == torch.int64


def test_items_tell_their_class(dataset: MultiClassDataset) -> None:
    """Each item has the class, the label and the mask of its image."""
    assert len(dataset) == 18
    assert dataset.task == "segmentation"
    check_classes(dataset)
    for item in dataset:
        bad = Path(item.image_path).parent.name == "bad"
        assert item.gt_label == bad
        assert (item.gt_mask is None) == (item.class_name == "nut")
        assert item.gt_mask is None or item.gt_mask.sum() == (64 if bad else 0)


def test_items_are_those_of_the_class(dataset: MultiClassDataset) -> None:
    """Images are read and augmented by the class's own dataset."""
    dataset.parts[0].dataset.augmentations = Resize((8, 8))
    assert torch.equal(dataset[0].image, dataset.parts[0].dataset[0].image)
    assert {tuple(item.image.shape) for item in dataset if item.class_name == "bolt"} == {(3, 8, 8)}
    assert {tuple(item.image.shape) for item in dataset if item.class_name == "zip"} == {(3, 32, 32)}


def test_rows_can_be_chosen_reordered_and_split(dataset: MultiClassDataset) -> None:
    """What anomalib does to datasets keeps each image's class."""
    check_classes(dataset.subsample([17, 0, 9]))
    assert sorted(folders(dataset.subsample([17, 0, 9]))) == ["bolt", "nut", "zip"]
    dataset.samples = dataset.samples.sample(frac=1, random_state=0)
    check_classes(dataset)
    first, second = random_split(dataset, 0.25, label_aware=True, seed=0)
    check_classes(first)
    check_classes(second)
    paths = [*first.samples["image_path"], *second.samples["image_path"]]
    assert sorted(paths) == sorted(dataset.samples["image_path"])
    check_classes(pickle.loads(pickle.dumps(dataset)))


def test_task_is_classification_without_masks(dataset: MultiClassDataset) -> None:
    """Masks of other classes do not matter."""
    assert MultiClassDataset(dataset.parts[1:2]).task == "classification"


def test_class_without_masks_has_none(dataset: MultiClassDataset) -> None:
    """Not even where its dataset makes some up, as MVTec LOCO's does for normal images."""
    bolt = dataset.parts[0]
    assert bolt.dataset[0].gt_mask is not None
    made_up = MultiClassDataset([ClassPart(0, "bolt", bolt.dataset, has_masks=False)])
    assert [item.gt_mask for item in made_up] == [None] * 6


def test_only_its_like_can_be_added(dataset: MultiClassDataset) -> None:
    """A plain dataset has no class."""
    with pytest.raises(TypeError, match=r"Expected a MultiClassDataset to add, got a FolderDataset"):
        dataset + dataset.parts[0].dataset


def test_no_classes() -> None:
    """There is nothing to read."""
    with pytest.raises(ValueError, match=r"expected at least one class, got none"):
        MultiClassDataset([])


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n no image"])
def test_file_that_broke_since(dataset: MultiClassDataset, content: bytes) -> None:
    """The file and its class are named."""
    path = Path(dataset.samples["image_path"][0])
    path.write_bytes(content)
    with pytest.raises(OSError, match=f"Image .*{path.name} of class 'bolt' or its mask .* cannot be read.*Replace"):
        dataset[0]


def test_file_that_pillow_refuses_by_a_value_error_since(dataset: MultiClassDataset) -> None:
    path = trees.write_refused_image(Path(dataset.samples["image_path"][6]))
    with pytest.raises(OSError, match=f"Image .*{path.name} of class 'nut' cannot be read: Truncated tRNS"):
        dataset[6]


def test_truncated_file(dataset: MultiClassDataset) -> None:
    """A header alone is no image."""
    path = Path(dataset.samples["image_path"][6])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(OSError, match=f"Image .*{path.name} of class 'nut' cannot be read"):
        dataset[6]


def test_files_that_are_gone_are_named(dataset: MultiClassDataset) -> None:
    """When they are read, and when a training holds others out before."""
    paths = [Path(dataset.samples["image_path"][row]) for row in (1, 7)]
    for path in paths:
        path.unlink()
    for row, path in zip((1, 7), paths, strict=True):
        with pytest.raises(OSError, match=rf"Image .*{path.name} of class .* cannot be read: .*put it back, or start"):
            dataset[row]
    message = rf"2 images were deleted after the data was set up: .*{paths[0].name}, .*{paths[1].name}\. Restore them"
    with pytest.raises(FileNotFoundError, match=message):
        hold_out(dataset, 0.1)


def batches(sampler: MaskBatchSampler) -> list[str]:
    """Write each batch as a word, with M for an image of a class with masks."""
    return ["".join(".M"[sampler.has_masks[index]] for index in batch) for batch in sampler]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("kinds", ["", "M", "MM..", "MMM....M", "MMMMM.....", ".M.M", "MMMMMM"])
def test_batches_do_not_mix(kinds: str, drop_last: bool) -> None:
    """Batches are what splitting at each change of kind, and then at the batch size, gives."""
    sampler = MaskBatchSampler(range(len(kinds)), 3, drop_last, [kind == "M" for kind in kinds])
    runs = ["".join(run) for _, run in itertools.groupby(kinds)]
    expected = [run[start : start + 3] for run in runs for start in range(0, len(run), 3)]
    expected = [batch for batch in expected if len(batch) == 3 or not drop_last]
    assert batches(sampler) == expected
    assert len(sampler) == len(expected)
    if not drop_last:
        assert [index for batch in sampler for index in batch] == list(range(len(kinds)))


@pytest.mark.parametrize("stage", [RunningStage.TESTING, RunningStage.PREDICTING])
@pytest.mark.parametrize("devices", [1, 2])
def test_batches_under_lightning(dataset: MultiClassDataset, stage: RunningStage, devices: int) -> None:
    """Lightning builds the sampler anew to predict and for several devices; still nothing mixes and all is there."""
    has_masks = dataset.samples["has_masks"].to_list()
    seen = []
    for rank in range(devices):
        # As Lightning does around a datamodule's hooks.
        with _replace_dunder_methods(DataLoader, "dataset"), _replace_dunder_methods(BatchSampler):
            batch_sampler = MaskBatchSampler(SequentialSampler(dataset), 4, drop_last=False, has_masks=has_masks)
            loader = DataLoader(dataset, batch_sampler=batch_sampler, collate_fn=dataset.collate_fn)
        sampler = loader.sampler
        if devices > 1 and stage == RunningStage.TESTING:
            sampler = DistributedSampler(dataset, devices, rank, shuffle=False)
        elif devices > 1:
            sampler = UnrepeatedDistributedSamplerWrapper(sampler, num_replicas=devices, rank=rank, shuffle=False)
        for batch in _update_dataloader(loader, sampler, stage):
            assert (batch.gt_mask is None) == (set(batch.class_name) == {"nut"})
            seen += batch.image_path
    assert sorted(map(str, seen)) == sorted(dataset.samples["image_path"])


@pytest.mark.parametrize("devices", [2, 3, 5])
@pytest.mark.parametrize("kinds", ["MM", "MMMMM...", "MMM..MM", ".M.M.M.M.MM...MMMM", "M" * 9 + "." * 16])
def test_devices_have_as_many_batches(kinds: str, devices: int) -> None:
    """Devices work in step: with more batches on one of them it would wait for the others forever."""
    has_masks = [kind == "M" for kind in kinds]
    samplers = [DistributedSampler(kinds, devices, rank, shuffle=False) for rank in range(devices)]
    of_each = [list(MaskBatchSampler(sampler, 3, drop_last=False, has_masks=has_masks)) for sampler in samplers]
    assert len({len(its_batches) for its_batches in of_each}) == 1
    for batch in itertools.chain(*of_each):
        assert len({has_masks[index] for index in batch}) == 1
    assert {index for its_batches in of_each for batch in its_batches for index in batch} == set(range(len(kinds)))


def test_batch_sampler_that_cannot_know() -> None:
    """A loader that the trainer did not get from the datamodule, on several devices."""
    with pytest.raises(ValueError, match=r"got range. Give the trainer or engine the datamodule instead"):
        MaskBatchSampler(range(4), 2, drop_last=False)
