# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Runs of the benchmark of many models: made up, or in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalib_hgad.benchmark import command, execution
from anomalib_hgad.benchmark.plan import Run
from anomalib_hgad.common.files import write_json


def record(name: str, seed: int, of_classes: dict[str, float], setting: str = "unified") -> dict[str, object]:
    """What a run leaves, with an image AUROC for each class."""
    return {
        "settings": {
            "name": name,
            "seed": seed,
            "choice": {"model": name, "arguments": {}},
            "only_class": None,
            "protocol": {
                "setting": setting,
                "max_epochs": 2,
                "image_size": 32,
                "data": {"root": "/secret"},
                "backbone_weights": {},
            },
        },
        "classes": {key: {"image_AUROC": value} for key, value in of_classes.items()},
        "pooled": {"image_AUROC": 0.5},
        "calibrated": None,
        "epochs": 2,
        "fit_seconds": 10.0,
        "test_seconds": 2.0,
        "milliseconds_per_image": 3.0,
        "peak_memory_bytes": 2_000_000_000,
        "parameters": 1_500_000,
        "versions": {},
    }


def keep_runs_in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let runs take place here, where anomalib is loaded already; the list fills with their titles."""
    titles: list[str] = []

    def run_here(run: Run, folder: Path) -> int:
        titles.append(run.title)
        write_json(run.settings, folder / execution.SETTINGS_FILE)
        try:
            execution.main(folder)
        except ValueError:
            return 1
        return 0

    monkeypatch.setattr(command, "run_in_own_process", run_here)
    return titles
