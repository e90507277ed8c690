# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A config for every dataset of anomalib with categories, read by the real command line; test_cli.py trains them."""

from __future__ import annotations

import inspect
from pathlib import Path

import anomalib.data
import pytest
import yaml
from anomalib.cli import AnomalibCLI
from anomalib.data import AnomalibDataModule
from anomalib.data.datamodules.base import AnomalibVideoDataModule
from anomalib.data.datasets.image import kaputt

from tests.helpers.commands import LIGHT_FLAGS
from tests.helpers.datasets import CATEGORIES_OF_CONFIG, CLASSES_OF_CONFIG, write_datasets
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow

DATASETS = {
    "adam_3d": "ADAM3D",
    "autovi": "AutoVI",
    "bmad": "BMAD",
    "btad": "BTech",
    "kaputt": "Kaputt",
    "mpdd": "MPDD",
    "mvtec_3d_rgb": "MVTec3D",
    "mvtec_ad": "MVTecAD",
    "mvtec_ad_2": "MVTecAD2",
    "mvtec_loco": "MVTecLOCO",
    "real_iad": "RealIAD",
    "vad": "VAD",
    "visa": "Visa",
}
"""Configs of Hgad on a dataset of anomalib, one for each that has categories."""


def test_every_dataset_with_categories_has_a_config() -> None:
    known = {
        name
        for name, datamodule in vars(anomalib.data).items()
        if isinstance(datamodule, type)
        and issubclass(datamodule, AnomalibDataModule)
        and "category" in inspect.signature(datamodule).parameters
        and not issubclass(datamodule, AnomalibVideoDataModule)
    }
    assert set(DATASETS.values()) == known
    for config, dataset in DATASETS.items():
        settings = yaml.safe_load((ROOT / f"configs/{config}.yaml").read_text())
        assert settings["data"]["init_args"]["dataset"] == dataset


def test_configs_of_datasets_name_all_categories_or_none() -> None:
    """Categories that are no folders have to be named; none may be missing."""
    named = yaml.safe_load((ROOT / "configs/kaputt.yaml").read_text())["data"]["init_args"]["categories"]
    assert named == list(kaputt.CATEGORIES)


@pytest.mark.parametrize("config", DATASETS)
def test_config_reads_its_dataset(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes, images and masks of a tree in the layout of the dataset, by the command line up to the training."""
    write_datasets(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    flags = [*LIGHT_FLAGS, "--data.num_workers=0", *CATEGORIES_OF_CONFIG.get(config, [])]
    datamodule = AnomalibCLI(["train", f"--config={ROOT / f'configs/{config}.yaml'}", *flags], run=False).datamodule
    datamodule.prepare_data()
    datamodule.setup()
    classes = CLASSES_OF_CONFIG.get(config, 2)
    assert len(datamodule.class_names) == classes
    assert {int(item.gt_label) for item in datamodule.train_data} == {0}
    tested = list(datamodule.test_data)
    anomalous = [item for item in tested if item.gt_label]
    assert len(anomalous) == len(tested) - len(anomalous) == 2 * classes
    assert {item.class_name for item in anomalous} == set(datamodule.class_names)
    for item in anomalous:
        assert (item.gt_mask is None) if config == "bmad" else (item.gt_mask.sum() == 64)
