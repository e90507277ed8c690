# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Adds and drops rows of constants that have one for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn


def append_rows(module: nn.Module, rows: Mapping[str, torch.Tensor]) -> None:
    """Append rows to parameters and buffers of a module.

    Args:
        module: The module.
        rows: The rows, by the name of the parameter or buffer in the module's state.
    """
    for name, added in rows.items():
        old = _get(module, name)
        _set(module, name, torch.cat((old.detach(), added.to(old))))


def keep_rows(module: nn.Module, rows: Sequence[int], *names: str) -> None:
    """Keep only some rows of parameters and buffers of a module.

    Args:
        module: The module.
        rows: Rows to keep, in this order.
        *names: Names of the parameters and buffers.
    """
    for name in names:
        _set(module, name, _get(module, name).detach()[list(rows)])


def _get(module: nn.Module, name: str) -> torch.Tensor:
    owner, _, own_name = name.rpartition(".")
    return cast("torch.Tensor", getattr(module.get_submodule(owner), own_name))


def _set(module: nn.Module, name: str, value: torch.Tensor) -> None:
    old = _get(module, name)
    owner, _, own_name = name.rpartition(".")
    value = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
    setattr(module.get_submodule(owner), own_name, value)
