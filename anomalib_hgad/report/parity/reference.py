# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The model of a checkpoint, and its outputs for an image in PyTorch."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast

import anomalib.models
import numpy as np
import torch
from anomalib.models import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.utils.serialization import anomalib_safe_globals

from anomalib_hgad.data.batch import ClassImageBatch
from anomalib_hgad.evaluation.post_processing import labels_without_meaning, remove_labels_without_meaning
from anomalib_hgad.models.checkpoint import VERSIONS_KEY
from anomalib_hgad.models.checkpoint_io import explain_checkpoint_errors
from anomalib_hgad.models.hgad.class_labels import CLASS_NAMES_KEY
from anomalib_hgad.models.hgad.lightning_model import Hgad
from anomalib_hgad.models.uniad.lightning_model import UniAd
from anomalib_hgad.report.parity.outputs import Outputs


class Reference:
    """A checkpoint in PyTorch.

    Args:
        ckpt_path: The checkpoint.
        model_name: Name of the model in anomalib; ``None`` to detect it.

    Attributes:
        model: The model.
        without_labels: Those of ``pred_label`` and ``pred_mask`` that mean nothing, as there was no validation.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If it cannot be read, if its model is unknown, or if it is of another model.
    """

    def __init__(self, ckpt_path: Path, model_name: str | None = None) -> None:
        if not ckpt_path.is_file():
            msg = f"No checkpoint at {ckpt_path}. `anomalib train` writes one into weights/lightning of its run."
            raise FileNotFoundError(msg)
        self.model = _load(ckpt_path, _model_class(ckpt_path, model_name))
        self.without_labels = labels_without_meaning(self.model.post_processor)

    @property
    def class_names(self) -> list[str] | None:
        """Classes of the model; ``None`` for a model without them."""
        return getattr(self.model, "class_names", None)

    @property
    def threshold(self) -> float | None:
        """Threshold of the post-processed scores; ``None`` if labels mean nothing."""
        if "pred_label" in self.without_labels or not isinstance(self.model.post_processor, PostProcessor):
            return None
        return float(self.model.post_processor.normalized_image_threshold)

    @torch.inference_mode()
    def predict(self, image: torch.Tensor) -> Outputs:
        """Predict an image as ``anomalib predict`` does.

        Args:
            image: Values from 0 to 1, shape (3, height, width).

        Returns:
            Outputs of the model.
        """
        batch = ClassImageBatch(image=image.unsqueeze(0))
        # Without a trainer, which none of anomalib's components needs.
        pre_processor, post_processor = cast("Any", self.model.pre_processor), cast("Any", self.model.post_processor)
        if hasattr(pre_processor, "on_predict_batch_start"):
            pre_processor.on_predict_batch_start(None, self.model, batch, 0)
        batch = self.model.predict_step(batch, 0)
        if hasattr(post_processor, "on_predict_batch_end"):
            post_processor.on_predict_batch_end(None, self.model, batch, batch, 0)
        if isinstance(post_processor, PostProcessor):
            remove_labels_without_meaning(batch, post_processor)
        values = {name: getattr(batch, name, None) for name in Outputs.TENSORS}
        names = getattr(batch, "pred_class_name", None)
        return Outputs.of({name: None if value is None else np.asarray(value) for name, value in values.items()}, names)


def _model_class(ckpt_path: Path, name: str | None) -> type[AnomalibModule]:
    """Class of a checkpoint: given, or found by entries of ours, or by the folders that anomalib has put it in."""
    models = {
        name: value
        for name, value in (vars(anomalib.models) | {"Hgad": Hgad, "UniAd": UniAd}).items()
        if inspect.isclass(value) and issubclass(value, AnomalibModule) and value is not AnomalibModule
    }
    if name is not None and name not in models:
        msg = f"Expected model to be one of {', '.join(sorted(models))}; got {name!r}."
        raise ValueError(msg)
    if name is None:
        content = _content(ckpt_path)
        if VERSIONS_KEY in content:
            return Hgad if CLASS_NAMES_KEY in content else UniAd
        name = next((folder.name for folder in ckpt_path.resolve().parents if folder.name in models), None)
    if name is None:
        msg = f"Neither {ckpt_path} nor the folders that it is in name its model: give the name as --model, "
        msg += "such as --model Padim."
        raise ValueError(msg)
    return models[name]


def _content(ckpt_path: Path) -> dict[str, Any]:
    # Some of anomalib's models store their own types in a checkpoint, which only their classes know.
    own = [kind for model in AnomalibModule.__subclasses__() for kind in model.checkpoint_safe_globals()]
    with explain_checkpoint_errors(ckpt_path), anomalib_safe_globals(extra=own):
        return cast("dict[str, Any]", torch.load(ckpt_path, map_location="cpu", weights_only=True, mmap=True))


def _load(ckpt_path: Path, model: type[AnomalibModule]) -> AnomalibModule:
    # The checkpoint holds the backbone's weights: none are downloaded.
    settings = {"pre_trained": False} if "pre_trained" in inspect.signature(model).parameters else {}
    try:
        with explain_checkpoint_errors(ckpt_path):
            return model.load_from_checkpoint(ckpt_path, map_location="cpu", **settings).eval()
    except (RuntimeError, TypeError, OSError) as error:  # other weights or arguments, or weights that it downloads
        msg = f"{ckpt_path} cannot be loaded as {model.__name__}: {str(error).splitlines()[0]} Give the name of its "
        msg += "model as --model."
        raise ValueError(msg) from error
