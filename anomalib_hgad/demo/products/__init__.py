# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The five products of the demo.

Each module has ``KINDS``, the names of its defects, and ``draw(rng, kind, harm)``, which returns a scene and the mask
of its defect, (S, S) in {0, 1} on the scene's canvas. Everything about the part itself is drawn from ``rng``, all about
the defect from ``harm``: with ``kind=None`` the same ``rng`` gives the same part, sound.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from anomalib_hgad.demo.fields import Field
from anomalib_hgad.demo.products import blister, chip, fabric, nut, plank
from anomalib_hgad.demo.scene import Scene

Draw = Callable[[np.random.Generator, str | None, np.random.Generator], tuple[Scene, Field]]


class Product(NamedTuple):
    """How to draw a product, and the kinds of defect it may have."""

    draw: Draw
    kinds: tuple[str, ...]


PRODUCTS: dict[str, Product] = {
    "blister": Product(blister.draw, blister.KINDS),
    "chip": Product(chip.draw, chip.KINDS),
    "fabric": Product(fabric.draw, fabric.KINDS),
    "nut": Product(nut.draw, nut.KINDS),
    "plank": Product(plank.draw, plank.KINDS),
}
