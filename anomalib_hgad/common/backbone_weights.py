# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Weights of a backbone from a file, or from a package."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from timm.models import load_state_dict
from torch import nn

from anomalib_hgad.common.registry_weights import package_weights

FROM_PACKAGE = "package"
"""What ``backbone_weights`` is, in place of a file, where an installed package has them."""


def load_backbone_weights(module: nn.Module, weights: str | Path, backbone: str) -> None:
    """Load local weights into a backbone; tensors that the backbone does not need are ignored.

    Args:
        module: The backbone, cut after the last stage that is used.
        weights: A safetensors or PyTorch file with a state dict under timm's names; or ``"package"``, for those of a
            package, see :mod:`~anomalib_hgad.common.registry_weights`.
        backbone: timm model name.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If there is no such package.
        ValueError: If the file cannot be read, or lacks a tensor that is needed, or has it in another
            shape or with numbers that are not finite; or if no package has weights of this backbone.
    """
    stored = package_weights(backbone) if weights == FROM_PACKAGE else _read(Path(weights))
    needed = module.state_dict()
    names = _stored_names(needed, stored)
    found = {key: stored[name] for key, name in names.items() if isinstance(stored[name], torch.Tensor)}
    missing = [key for key in needed if key not in found and not key.endswith("num_batches_tracked")]
    if missing:
        msg = f"backbone_weights: {weights} lacks {len(missing)} of {len(needed)} tensors that are needed, such as "
        msg += f"{', '.join(missing[:3])}. Is it of another backbone, or cut before the last of the layers?"
        raise ValueError(msg)
    for key, tensor in found.items():
        if tensor.shape != needed[key].shape:
            msg = f"backbone_weights: {weights} has {key} of shape {tuple(tensor.shape)}, expected "
            msg += f"{tuple(needed[key].shape)}. It is of another backbone."
            raise ValueError(msg)
        if not tensor.isfinite().all():
            msg = f"backbone_weights: {weights} has numbers that are not finite in {key}. Take an intact file."
            raise ValueError(msg)
    module.load_state_dict(found, strict=False)


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        msg = f"backbone_weights: no file at {path}. Expected a .safetensors or .pth file with timm weights."
        raise FileNotFoundError(msg)
    try:
        return load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:
        msg = f"backbone_weights: {path} cannot be read as a .safetensors or .pth state dict ({error})."
        raise ValueError(msg) from error


def _stored_names(needed: Iterable[str], stored: Iterable[str]) -> dict[str, str]:
    """Names of a backbone's tensors in a file, which has those of the whole model.

    A cut model of timm has ``stages_0`` for ``stages.0``, or is the ``model`` or ``body`` of another one.
    """
    joined = {name.replace(".", "_"): name for name in stored}
    names = {}
    for key in needed:
        for name in (key, key.removeprefix("model."), key.removeprefix("body.")):
            if name.replace(".", "_") in joined:
                names[key] = joined[name.replace(".", "_")]
                break
    return names
