# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A tiny tree for every shipped config, in the layout of its dataset and where the config looks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from anomalib.data.datasets.image import kaputt

from tests.helpers import trees


def in_mvtec_layout(root: Path, category: str) -> None:
    """Write a category of a dataset that has MVTec AD's layout."""
    trees.mvtec_class(root / category)


TREES: dict[str, tuple[Callable[[Path, str], object], tuple[str, ...]]] = {
    "ADAM3D": (trees.adam_3d_class, ("1m1", "spurgear")),
    "AutoVI": (trees.autovi_class, ("pipe_clip", "tank_screw")),
    "BMAD": (trees.bmad_class, ("Brain", "Chest")),
    "BTech": (trees.btech_class, ("01", "02")),
    "MPDD": (in_mvtec_layout, ("connector", "tubes")),
    "MVTec3D": (trees.mvtec_3d_class, ("bagel", "dowel")),
    "MVTecAD": (in_mvtec_layout, ("bottle", "cable")),
    "MVTecLOCO": (trees.mvtec_loco_class, ("juice_bottle", "pushpins")),
    "MVTec_AD_2": (trees.mvtec_ad_2_class, ("can", "vial")),
    "Real-IAD": (trees.real_iad_class, ("mint", "usb")),
    "VAD": (in_mvtec_layout, ("vad",)),
    "kaputt": (trees.kaputt_class, ("paper", "plastic_hard")),
    "products": (in_mvtec_layout, ("bolt", "nut")),
    "visa": (trees.visa_class, ("candle", "pcb1")),
}
"""How a category is written into each folder of datasets, and which are."""

CATEGORIES_OF_CONFIG = {"kaputt": ["--data.categories=[paper,plastic_hard]"]}
"""Where a config names all categories, those that are there."""

CLASSES_OF_CONFIG = {"union": 8, "cifar10": 5, "vad": 1}
"""Number of classes where it is not 2."""


def write_datasets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write them into ``datasets`` within a folder."""
    for name, (write, categories) in TREES.items():
        for category in categories:
            write(folder / "datasets" / name, category)
    # What stands in for the Parquet files of Kaputt; see trees.kaputt_class.
    monkeypatch.setattr(pd, "read_parquet", pd.read_pickle)
    monkeypatch.setattr(kaputt, "module_available", lambda name: True)
    trees.cifar10(folder / "datasets", monkeypatch)
