# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Backbone weights from a file or from an installed package."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from timm.models import load_state_dict
from torch import nn

from anomalib_hgad.common.registry_weights import package_weights

FROM_PACKAGE = "package"
"""Value of ``backbone_weights`` for the weights of an installed package, instead of a file."""


def load_backbone_weights(module: nn.Module, weights: str | Path, backbone: str) -> None:
    """Load local weights into a backbone; extra tensors are ignored.

    Args:
        module: The backbone, cut after the last stage in use.
        weights: A safetensors or PyTorch file with a state dict in timm's names, or ``"package"`` for the weights of
            an installed package, see :mod:`~anomalib_hgad.common.registry_weights`.
        backbone: timm model name.

    Raises:
        FileNotFoundError: If the file does not exist.
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file cannot be read, lacks a tensor, has one of another shape or with NaN or infinite values,
            or if no package has weights of this backbone.
    """
    stored = package_weights(backbone) if weights == FROM_PACKAGE else _read(Path(weights))
    needed = module.state_dict()
    names = _stored_names(needed, stored)
    found = {key: stored[name] for key, name in names.items() if isinstance(stored[name], torch.Tensor)}
    missing = [key for key in needed if key not in found and not key.endswith("num_batches_tracked")]
    if missing:
        msg = f"backbone_weights: {weights} lacks {len(missing)} of {len(needed)} required tensors, such as "
        msg += f"{', '.join(missing[:3])}. Is the file for another backbone, or truncated before the last layer in use?"
        raise ValueError(msg)
    for key, tensor in found.items():
        if tensor.shape != needed[key].shape:
            msg = f"backbone_weights: {weights} has {key} of shape {tuple(tensor.shape)}, expected "
            msg += f"{tuple(needed[key].shape)}. The file is for another backbone."
            raise ValueError(msg)
        if not tensor.isfinite().all():
            msg = f"backbone_weights: {weights} has NaN or infinite values in {key}. Use an intact file."
            raise ValueError(msg)
    module.load_state_dict(found, strict=False)


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        msg = f"backbone_weights: no file {path}. Expected a .safetensors or .pth file with timm weights."
        raise FileNotFoundError(msg)
    try:
        return load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:
        msg = f"backbone_weights: {path} cannot be read as a .safetensors or .pth state dict ({error})."
        raise ValueError(msg) from error


def _stored_names(needed: Iterable[str], stored: Iterable[str]) -> dict[str, str]:
    """Map the names of a backbone's tensors to those in a file of the complete model.

    timm names a stage of a cut model ``stages_0`` instead of ``stages.0``, or wraps the model as ``model`` or ``body``.
    """
    joined = {name.replace(".", "_"): name for name in stored}
    names = {}
    for key in needed:
        for name in (key, key.removeprefix("model."), key.removeprefix("body.")):
            if name.replace(".", "_") in joined:
                names[key] = joined[name.replace(".", "_")]
                break
    return names
