# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Who changes the training data of a datamodule, and that the changes are taken back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from anomalib_hgad import MultiClass
from anomalib_hgad.data.batch import FeatureBatch
from anomalib_hgad.models.hgad.feature_cache.dataset import FeatureDataset
from anomalib_hgad.models.hgad.feature_cache.store import MemoryFeatures
from anomalib_hgad.models.hgad.training_data import TrainingData
from tests.helpers import trees


@pytest.fixture
def datamodule(tmp_path: Path) -> MultiClass:
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / "plant" / name, train=4)
    datamodule = MultiClass(root=tmp_path / "plant", train_batch_size=3, num_workers=2)
    datamodule.setup()
    return datamodule


def test_held_out_images_come_back(datamodule: MultiClass) -> None:
    images, data = datamodule.train_data, TrainingData()
    data.start(datamodule, share=0.25)
    assert (len(datamodule.train_data), len(data.held_out)) == (6, 2)
    data.restore()
    assert datamodule.train_data is images
    assert len(data.held_out) == 2, "who looks after the training still finds them"


def test_second_start_holds_out_of_all_images(datamodule: MultiClass) -> None:
    data = TrainingData()
    data.start(datamodule, share=0.5)
    data.start(datamodule, share=0.25)  # as after a start that was interrupted
    assert (len(datamodule.train_data), len(data.held_out)) == (6, 2)
    data.start(datamodule, share=0.0)
    assert (len(datamodule.train_data), data.held_out) == (8, None)


@pytest.mark.parametrize("datamodule", [None, SimpleNamespace(), SimpleNamespace(train_data=[1, 2])])
def test_data_that_says_no_classes_is_left_alone(datamodule: SimpleNamespace | None) -> None:
    before = dict(vars(datamodule)) if datamodule else {}
    data = TrainingData()
    data.start(datamodule, share=0.5)
    assert data.held_out is None
    assert (vars(datamodule) if datamodule else {}) == before


def test_features_take_the_place_of_images_until_the_end(datamodule: MultiClass) -> None:
    data, images = TrainingData(), datamodule.train_data
    data.start(datamodule, share=0.25)
    held_out = data.held_out
    store = MemoryFeatures(8, [(2, 1, 1)], torch.float32)
    store.fill([[torch.arange(16.0).view(8, 2, 1, 1)]])
    data.use_features(datamodule, FeatureDataset(datamodule.train_data, store, 0), FeatureDataset(held_out, store, 6))
    loader = datamodule.train_dataloader()
    assert isinstance(loader, DataLoader)
    assert (loader.num_workers, datamodule.num_workers) == (0, 2)
    batch = next(iter(loader))
    assert isinstance(batch, FeatureBatch)
    assert batch.features[0].shape == (3, 2, 1, 1)
    assert data.held_out[0].features[0].flatten().tolist() == [12.0, 13.0]
    assert data.has_features
    features = data.held_out
    data.on_exception(None, None, KeyboardInterrupt())
    assert not data.has_features
    assert datamodule.train_data is images
    assert data.held_out is held_out
    assert datamodule.train_dataloader().num_workers == 2
    with pytest.raises(RuntimeError, match="for a training that has ended"):
        features[0]
