# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The runs that are killed, what has to be whole then, and how they go on."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.helpers import trees
from tests.helpers.commands import FAST_FLAGS, LIGHT_FLAGS, data_flags
from tests.stress.faults.killed_run import run

EXPORTS = {"torch": "pt", "onnx": "onnx", "openvino": "xml"}
BLANK = np.full((1, 3, 32, 32), 0.5, dtype=np.float32)


@dataclass
class Scenario:
    """A run that is killed, what has to be whole then, and how it goes on.

    Attributes:
        phase: Name of the phase.
        arguments: Command line whose files go to a folder.
        check: Raises if a file in the folder is not whole.
        goes_on: Command line that resumes or repeats the run.
        result: What the run has made.
        prepare: Puts into a new folder what was there before the run.
    """

    phase: str
    arguments: Callable[[Path], list[str]]
    check: Callable[[Path], None]
    goes_on: Callable[[Path], list[str]]
    result: Callable[[Path], dict[str, Any]]
    prepare: Callable[[Path], None] = lambda _: None


def train_flags(data: Path, folder: Path, seed: int = 0) -> list[str]:
    return [
        *("train", "--model=Hgad", *LIGHT_FLAGS, f"--model.seed={seed}", "--model.lr=1e-3", "--model.visualizer=false"),
        *(f"--model.feature_cache={folder / 'cache'}", *data_flags(data), "--data.train_batch_size=4"),
        *(*FAST_FLAGS, "--trainer.max_epochs=4", f"--default_root_dir={folder}"),
    ]


def newest(folder: Path, name: str) -> Path | None:
    """The file of this name that was written last."""
    return max(folder.rglob(name), key=lambda path: path.stat().st_mtime_ns, default=None)


def trained(folder: Path) -> dict[str, Any]:
    """Weights and figures of a training."""
    weights = torch.load(newest(folder, "model.ckpt"), weights_only=True)["state_dict"]
    return {name: tensor for name, tensor in weights.items() if name.startswith("model.")} | figures(folder)


def figures(folder: Path) -> dict[str, Any]:
    return json.loads(newest(folder, "results.json").read_text())["mean"]


def decisions(folder: Path) -> dict[str, Any]:
    """Figures of a test and the scores of its images."""
    with newest(folder, "predictions.csv").open() as file:
        scores = [float(row["pred_score"]) for row in csv.DictReader(file)]
    return figures(folder) | {"scores": scores}


def check_checkpoints(folder: Path) -> None:
    for path in folder.rglob("*.ckpt"):
        torch.load(path, weights_only=True)


def check_text_files(folder: Path) -> None:
    for path in folder.rglob("results.json"):
        json.loads(path.read_text())
    for name in ("results.csv", "predictions.csv"):
        for path in folder.rglob(name):
            assert path.read_bytes() == newest(folder.parent / "unbroken", name).read_bytes(), path


def check_cache(folder: Path) -> None:
    for path in folder.glob("cache/*.npy"):
        assert path.read_bytes() == (folder.parent / "unbroken/cache" / path.name).read_bytes(), path


def exported_score(path: Path) -> float:
    """Score of a grey image by an exported file."""
    if path.suffix == ".pt":
        model = torch.load(path, weights_only=False)["model"].eval()
        with torch.no_grad():
            return model(torch.from_numpy(BLANK)).pred_score.item()
    if path.suffix == ".onnx":
        import onnxruntime  # noqa: PLC0415 - the server of processes has no need of it

        session = onnxruntime.InferenceSession(path)
        return session.run(["pred_score"], {session.get_inputs()[0].name: BLANK})[0].item()
    import openvino  # noqa: PLC0415 - as above

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(BLANK)[compiled.output("pred_score")].item()


class Scenarios:
    """Makes the scenarios of a phase, on data of two classes.

    Args:
        root: Folder for the data and for what has to be there before.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        for name in ("bolt", "nut"):
            trees.mvtec_class(self.data / name, train=12)

    def of(self, phase: str) -> dict[str, Scenario]:
        """The scenarios by title."""
        if phase == "exporting":
            return {f"exporting {kind}": self._export(kind) for kind in EXPORTS}
        make = {"training": self._train, "caching": self._cache, "testing": self._test}[phase]
        return {phase: make()}

    def _train(self) -> Scenario:
        return Scenario("training", self._train_flags, check_checkpoints, self._resume_flags, trained)

    def _cache(self) -> Scenario:
        return Scenario("caching", self._train_flags, check_cache, self._resume_flags, trained)

    def _train_flags(self, folder: Path) -> list[str]:
        return train_flags(self.data, folder)

    def _resume_flags(self, folder: Path) -> list[str]:
        checkpoint = newest(folder, "model.ckpt")
        return [*self._train_flags(folder), *([f"--ckpt_path={checkpoint}"] if checkpoint else [])]

    def _checkpoint(self, seed: int) -> Path:
        """Checkpoint of a whole training."""
        folder = self.root / f"model{seed}"
        if not folder.exists():
            run("training", train_flags(self.data, folder, seed), folder)
        return newest(folder, "model.ckpt")

    def _test(self) -> Scenario:
        def flags(folder: Path) -> list[str]:
            return [
                *("test", "--model=Hgad", *LIGHT_FLAGS, "--model.visualizer=false", *data_flags(self.data)),
                *(f"--ckpt_path={self._checkpoint(0)}", f"--default_root_dir={folder}"),
            ]

        return Scenario("testing", flags, check_text_files, flags, decisions)

    def _export(self, kind: str) -> Scenario:
        """An export over an earlier one, of another model."""

        def flags(folder: Path, seed: int = 0) -> list[str]:
            return [
                *("export", "--model=Hgad", *LIGHT_FLAGS, f"--export_type={kind}", f"--export_root={folder}"),
                *(f"--ckpt_path={self._checkpoint(seed)}", f"--default_root_dir={folder}"),
            ]

        def file(folder: Path) -> Path:
            return folder / f"weights/{kind}/model.{EXPORTS[kind]}"

        def check(folder: Path) -> None:
            """The file is the earlier one, the new one, or none."""
            if file(folder).exists():
                scores = (earlier_score, exported_score(file(folder.parent / "unbroken")))
                assert min(abs(exported_score(file(folder)) - score) for score in scores) < 1e-5, file(folder)

        earlier = self.root / f"earlier {kind}"
        run("exporting", flags(earlier, seed=1), earlier)
        earlier_score = exported_score(file(earlier))
        return Scenario(
            "exporting",
            flags,
            check,
            flags,
            lambda folder: {"score": exported_score(file(folder))},
            lambda folder: shutil.copytree(earlier, folder),
        )
