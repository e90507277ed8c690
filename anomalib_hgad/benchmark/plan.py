# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The runs of a benchmark: every model with every seed, on all classes at once or on each separately."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import anomalib.models
from anomalib.models import AnomalibModule

from anomalib_hgad.common.checks import check_folder_names
from anomalib_hgad.data.arguments import multi_class

Setting = Literal["unified", "separate"]
"""One model for all classes, or one for each."""


@dataclass(frozen=True)
class ModelChoice:
    """A row of the benchmark's table.

    Attributes:
        model: Name of the model in ``anomalib.models``.
        arguments: Arguments of its constructor.
        calibration: Whether to test the trained model a second time, with the scores of its classes brought to one
            scale by :class:`~anomalib_hgad.MultiClassCalibration`. This needs normal validation images.
    """

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    calibration: bool = False


@dataclass(frozen=True)
class Protocol:
    """What all models of a benchmark have in common.

    Attributes:
        data: Arguments of :class:`~anomalib_hgad.MultiClass`.
        image_size: Side of the square that images are resized to.
        max_epochs: Number of training epochs; models that need only one train for one.
        backbone_weights: Local files with the weights of timm models, by model name, used instead of downloads.
        setting: One model for all classes, or one for each.
    """

    data: dict[str, Any]
    image_size: int
    max_epochs: int
    backbone_weights: dict[str, str]
    setting: Setting


@dataclass(frozen=True)
class Run:
    """One training and its test.

    Attributes:
        name: The row of the table that it belongs to.
        choice: The model.
        protocol: Its data and training.
        seed: Seed of all random numbers.
        only_class: The class, if the model is for one class only.
    """

    name: str
    choice: ModelChoice
    protocol: Protocol
    seed: int
    only_class: str | None = None

    @property
    def folder(self) -> Path:
        """Where its files go, relative to the folder of the benchmark."""
        return Path(self.name, *([self.only_class] if self.only_class else []), f"seed_{self.seed}")

    @property
    def title(self) -> str:
        """Its name in messages."""
        return " ".join([self.name, *([self.only_class] if self.only_class else []), f"seed {self.seed}"])

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that its result depends on, as plain values."""
        return asdict(self)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Run:
        """Restore a run from its :attr:`settings`."""
        choice, protocol = ModelChoice(**settings["choice"]), Protocol(**settings["protocol"])
        return cls(settings["name"], choice, protocol, settings["seed"], settings["only_class"])


def model_class(name: str) -> type[AnomalibModule]:
    """Find an anomalib model.

    Args:
        name: Its name in ``anomalib.models``.

    Returns:
        The class.

    Raises:
        ValueError: If the model does not exist.
    """
    found = getattr(anomalib.models, name, None)
    if not inspect.isclass(found) or not issubclass(found, AnomalibModule):
        names = [key for key, value in vars(anomalib.models).items() if inspect.isclass(value)]
        similar = difflib.get_close_matches(name, names, n=3)
        msg = f"anomalib.models has no model {name!r}. Similar names: {', '.join(similar) or 'none'}."
        raise ValueError(msg)
    return found


def make_plan(
    models: dict[str, ModelChoice], protocol: Protocol, seeds: Sequence[int], only: Sequence[str] | None = None
) -> list[Run]:
    """List the runs of a benchmark, seed after seed, so that an early stop leaves complete tables.

    Args:
        models: The models by the name of their row.
        protocol: Data and training.
        seeds: Seeds; every model is trained with each.
        only: Rows to run; ``None`` for all.

    Returns:
        The runs.

    Raises:
        ValueError: If a row, a model, an argument of one, or a class is unknown, or if there is nothing to run.
    """
    if not models or not seeds:
        msg = f"Expected at least one model and one seed, got {len(models)} models and {len(seeds)} seeds."
        raise ValueError(msg)
    check_folder_names("a row", models)
    for name, choice in models.items():
        known = set(inspect.signature(model_class(choice.model)).parameters)
        if unknown := sorted(set(choice.arguments) - known):
            msg = f"{choice.model} of row {name!r} has no argument {', '.join(unknown)}. It has: "
            msg += f"{', '.join(sorted(known))}."
            raise ValueError(msg)
    if unknown := sorted(set(only or []) - set(models)):
        msg = f"only: no row {', '.join(unknown)}. The rows are {', '.join(models)}."
        raise ValueError(msg)
    rows = {name: choice for name, choice in models.items() if only is None or name in only}
    datamodule = multi_class(protocol.data)  # checks the settings of the data
    runs = [Run(name, choice, protocol, seed) for seed in seeds for name, choice in rows.items()]
    if protocol.setting == "separate":
        runs = [replace(run, only_class=name) for run in runs for name in datamodule.class_names]
    return runs
