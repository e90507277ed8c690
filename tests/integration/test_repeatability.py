# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The same seed on the same machine makes the same checkpoint, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from anomalib_hgad import Hgad, MultiClass, UniAd
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

pytestmark = pytest.mark.slow


def trained(model: Hgad | UniAd, data: Path, folder: Path) -> Path:
    """The checkpoint of a training."""
    run = engine(folder, max_epochs=2)
    run.fit(model, datamodule=MultiClass(root=data, train_batch_size=4, num_workers=0))
    return Path(run.best_model_path)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(Hgad, LIGHT), pytest.param(UniAd, LIGHT_UNIAD, marks=pytest.mark.nightly)],
    ids=["Hgad", "UniAd"],
)
def test_same_seed_makes_the_same_checkpoint(
    kind: type[Hgad | UniAd], settings: dict[str, Any], tmp_path: Path
) -> None:
    """The same bytes in the same folder; in another one Lightning writes the other path into it."""
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / "data" / name)

    def train(seed: int, folder: str = "results") -> Path:
        return trained(kind(**settings, seed=seed, visualizer=False), tmp_path / "data", tmp_path / folder)

    path = train(seed=7)
    first, state = path.read_bytes(), torch.load(path, weights_only=True)["state_dict"]
    shutil.rmtree(tmp_path / "results")
    assert train(seed=7) == path
    assert path.read_bytes() == first
    again, other = (torch.load(train(seed, "elsewhere"), weights_only=True)["state_dict"] for seed in (7, 8))
    assert list(again) == list(state)
    for name, tensor in state.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)
    assert any(not torch.equal(other[name].nan_to_num(), tensor.nan_to_num()) for name, tensor in state.items())
