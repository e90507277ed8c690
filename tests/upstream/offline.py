# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A plugin for pytest: anomalib's tests build backbones with random weights, and download none."""

from __future__ import annotations

from typing import Any

import timm

create_model = timm.create_model


def _with_random_weights(*args: Any, pretrained: bool = False, **kwargs: Any) -> Any:
    del pretrained
    return create_model(*args, pretrained=False, **kwargs)


timm.create_model = _with_random_weights
