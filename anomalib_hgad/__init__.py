# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""HGAD and UniAD, each one anomaly model for many product classes, as an anomalib plugin.

The names are imported when they are first used: the hook that registers the plugin lives in this package, and every
Python start loads it.
"""

TYPE_CHECKING = False  # typing's own would have to be imported at every Python start
if TYPE_CHECKING:
    from anomalib_hgad.data.cifar10 import Cifar10
    from anomalib_hgad.data.multi_class import MultiClass
    from anomalib_hgad.evaluation.threshold import NormalPostProcessor
    from anomalib_hgad.models.hgad.lightning_model import Hgad
    from anomalib_hgad.models.hgad.torch_model import HgadModel
    from anomalib_hgad.models.uniad import UniAd, UniAdModel

__version__ = "0.3.0"

__all__ = [
    "Cifar10",
    "Hgad",
    "HgadModel",
    "MultiClass",
    "NormalPostProcessor",
    "UniAd",
    "UniAdModel",
    "__version__",
]

_HOMES = {
    "Cifar10": "cifar10",
    "Hgad": "lightning_model",
    "HgadModel": "torch_model",
    "MultiClass": "datamodule",
    "NormalPostProcessor": "normal_threshold",
    "UniAd": "uniad",
    "UniAdModel": "uniad",
}


def __getattr__(name: str) -> object:
    from importlib import import_module  # noqa: PLC0415

    from anomalib_hgad.compatibility import named_versions  # noqa: PLC0415

    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    with named_versions():
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
