# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Classes whose metrics a logger would keep under one name are named."""

from __future__ import annotations

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.mlflow import MLFlowLogger

from anomalib_hgad.evaluation.logged_names import warn_of_shared_names

MLFLOW = MLFlowLogger.__new__(MLFlowLogger)  # its constructor needs mlflow
CLASSES = ["bolt (M6)", "bolt [M6]", "nut", "болт", "ボルト"]


def test_classes_that_mlflow_cannot_tell_apart_are_named(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_shared_names([MLFLOW], CLASSES)
    brackets, letters = caplog.messages
    assert "'bolt (M6)', 'bolt [M6]' as one, image_AUROC_bolt M6 " in brackets
    assert "'болт', 'ボルト' as one, image_AUROC_ " in letters


@pytest.mark.parametrize(
    ("loggers", "classes"), [([], CLASSES), ([CSVLogger("unused")], CLASSES), ([MLFLOW], ["bolt (M6)", "bolt", "болт"])]
)
def test_nothing_is_said_of_names_that_stay_apart(
    loggers: list[Logger], classes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_shared_names(loggers, classes)
    assert not caplog.messages
