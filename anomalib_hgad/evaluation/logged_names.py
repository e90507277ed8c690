# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Names of metrics in loggers that do not accept every character of a class name."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.mlflow import MLFlowLogger

logger = logging.getLogger(__name__)

LEFT_OUT_BY_MLFLOW = re.compile(r"[^a-zA-Z0-9_/. -]+")
"""Characters that Lightning's ``MLFlowLogger.log_metrics`` removes from a metric's name."""


def warn_of_shared_names(loggers: Iterable[Logger], class_names: Iterable[str]) -> None:
    """Warn of classes whose metrics MLflow would keep under one name.

    Lightning removes brackets and all non-ASCII letters from the names that it gives to MLflow.

    Args:
        loggers: Loggers of a run.
        class_names: Names of the classes.
    """
    if not any(isinstance(run_logger, MLFlowLogger) for run_logger in loggers):
        return
    classes = defaultdict(list)
    for name in class_names:
        classes[LEFT_OUT_BY_MLFLOW.sub("", name)].append(name)
    for kept, names in classes.items():
        if len(names) > 1:
            logger.warning(
                "MLflow shows the metrics of the classes %s as one, image_AUROC_%s and so on: its logger accepts only "
                "ASCII letters, digits and _ / . -. results.csv has the metrics of each class; rename the folders to "
                "have them in MLflow as well.",
                ", ".join(map(repr, names)),
                kept,
            )
