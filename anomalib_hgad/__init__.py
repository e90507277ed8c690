# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""HGAD and UniAD, multi-class anomaly detection models (one model for many product classes), as an anomalib plugin.

Names are imported on first use: the hook that registers the plugin is in this package and runs at every Python start.
"""

TYPE_CHECKING = False  # typing's own would have to be imported at every Python start
if TYPE_CHECKING:
    from anomalib_hgad.data.cifar10 import MANY_VERSUS_MANY, Cifar10
    from anomalib_hgad.data.multi_class import MultiClass
    from anomalib_hgad.deploy.inferencer import ClassONNXInferencer, ClassOpenVINOInferencer
    from anomalib_hgad.evaluation.class_calibration import MultiClassCalibration
    from anomalib_hgad.evaluation.evaluator import ClassEvaluator
    from anomalib_hgad.evaluation.threshold import NormalPostProcessor
    from anomalib_hgad.models.hgad.lightning_model import Hgad
    from anomalib_hgad.models.hgad.torch_model import HgadModel
    from anomalib_hgad.models.uniad.lightning_model import UniAd

__version__ = "0.4.0"

__all__ = [
    "MANY_VERSUS_MANY",
    "Cifar10",
    "ClassEvaluator",
    "ClassONNXInferencer",
    "ClassOpenVINOInferencer",
    "Hgad",
    "HgadModel",
    "MultiClass",
    "MultiClassCalibration",
    "NormalPostProcessor",
    "UniAd",
    "__version__",
]

_HOMES = {
    "MANY_VERSUS_MANY": "data.cifar10",
    "Cifar10": "data.cifar10",
    "ClassEvaluator": "evaluation.evaluator",
    "ClassONNXInferencer": "deploy.inferencer",
    "ClassOpenVINOInferencer": "deploy.inferencer",
    "Hgad": "models.hgad.lightning_model",
    "HgadModel": "models.hgad.torch_model",
    "MultiClass": "data.multi_class",
    "MultiClassCalibration": "evaluation.class_calibration",
    "NormalPostProcessor": "evaluation.threshold",
    "UniAd": "models.uniad.lightning_model",
}
"""Modules that define the public names."""


def __getattr__(name: str) -> object:
    from importlib import import_module  # noqa: PLC0415

    from anomalib_hgad.compatibility import explain_missing_names  # noqa: PLC0415

    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    with explain_missing_names():
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
