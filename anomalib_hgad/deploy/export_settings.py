# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks the settings of an export before it starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from anomalib.deploy import CompressionType

CALIBRATED = (CompressionType.INT8_PTQ, CompressionType.INT8_ACQ)
"""Compression types that need images for calibration."""

logger = logging.getLogger(__name__)


def check_file_name(model_file_name: str) -> None:
    """Check the name of an exported file: folders in it would lead out of the export root.

    Args:
        model_file_name: The name, without suffix.

    Raises:
        ValueError: If it is empty or has folders.
    """
    if not model_file_name or Path(model_file_name).name != model_file_name:
        msg = f"Expected model_file_name to be a name without folders, such as model; got {model_file_name!r}. Give "
        msg += "the folder as export_root."
        raise ValueError(msg)


def check_input_size(input_size: object) -> None:
    """Check the size of the images of a graph.

    Args:
        input_size: Height and width in pixels; ``None`` for images of any size.

    Raises:
        ValueError: If it is something else.
    """
    sides = list(input_size) if isinstance(input_size, list | tuple) else []
    is_size = len(sides) == 2 and all(isinstance(side, Integral) and int(side) > 0 for side in sides)
    if input_size is not None and not is_size:
        msg = f"Expected input_size to be a height and a width in pixels, such as (256, 256); got {input_size!r}."
        raise ValueError(msg)


def check_compression(arguments: Mapping[str, Any]) -> None:
    """Check the compression of an export to OpenVINO; warn of an unused metric.

    Args:
        arguments: Arguments of the export by name.

    Raises:
        ValueError: If the type is unknown, if a calibrated one gets no data, if the metric is not a metric, or if
            ``max_drop`` is out of range.
    """
    given, metric = arguments.get("compression_type"), arguments.get("metric")
    types = [kind.value for kind in CompressionType]
    if given is not None and given not in types:  # anything else would be taken for INT8_ACQ
        msg = f"Expected compression_type to be None or one of {', '.join(types)}; got {given!r}."
        raise ValueError(msg)
    kind = None if given is None else CompressionType(given)
    if kind in CALIBRATED and arguments.get("datamodule") is None:
        msg = f"Datamodule must be provided: {kind.name} measures the ranges of the activations on images; expected a "
        msg += "datamodule, got None. Give the data that the model was trained on."
        raise ValueError(msg)
    if metric is not None and kind != CompressionType.INT8_ACQ:
        logger.warning("metric is ignored: only INT8_ACQ uses one, and compression_type is %s.", kind and kind.name)
    elif metric is not None and not all(hasattr(metric, name) for name in ("reset", "update", "compute")):
        msg = "Expected metric to be a metric with its fields, such as F1Score(fields=['pred_label', 'gt_label']) of "
        msg += f"anomalib.metrics; got {metric!r}."
        raise ValueError(msg)
    max_drop = arguments.get("max_drop", 0.0)
    if not 0 <= max_drop <= 1:
        msg = f"max_drop must be between 0 and 1, got {max_drop}. It is the accepted drop of the metric: 0.01 for 1 %."
        raise ValueError(msg)
