# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Scalar fields on a square pixel grid: noise, shapes and strokes that every rendered picture is made of.

Every field is a float32 array of shape (S, S), where S is the side of the canvas. Coordinates run over [-1, 1] from
left to right (u) and from top to bottom (v).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def grid(size: int) -> tuple[Field, Field]:
    """Return the coordinates (u, v) of the pixel centres, each (S, S) in [-1, 1]."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
    u, v = np.meshgrid(axis, axis)
    return u, v


def turned(u: Field, v: Field, degrees: float | Field) -> tuple[Field, Field]:
    """Return the coordinates seen from a frame that is turned by ``degrees``."""
    angle = np.radians(np.asarray(degrees, dtype=np.float32))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    return cos * u + sin * v, cos * v - sin * u


def noise(rng: np.random.Generator, size: int, cells: float | tuple[float, float]) -> Field:
    """Return smooth noise of about zero mean and unit variance with ``cells`` bumps along u (and v)."""
    across, down = cells if isinstance(cells, tuple) else (cells, cells)
    shape = (max(2, round(down) + 1), max(2, round(across) + 1))
    coarse = rng.standard_normal(shape).astype(np.float32)
    if shape[0] >= size and shape[1] >= size:
        return coarse[:size, :size]
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, dtype=np.float32)


def fractal(rng: np.random.Generator, size: int, cells: float, octaves: int = 4, persistence: float = 0.5) -> Field:
    """Return a sum of noises whose frequency doubles and whose amplitude shrinks by ``persistence`` each octave."""
    total = np.zeros((size, size), dtype=np.float32)
    for octave in range(octaves):
        total += np.float32(persistence**octave) * noise(rng, size, cells * 2**octave)
    return total


def blurred(field: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return the field under a Gaussian blur of ``sigma`` pixels; (S, S) or (S, S, C)."""
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), dtype=np.float32)


def step(field: Field, low: float, high: float) -> Field:
    """Return 0 below ``low``, 1 above ``high`` and a smooth ramp between (``low > high`` turns it round)."""
    ramp = np.clip((field - low) / (high - low), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), dtype=np.float32)


def inside(distance: Field, soft: float = 0.004) -> Field:
    """Return the coverage in [0, 1] of the shape whose signed distance is negative inside, with a soft edge."""
    return step(distance, soft, -soft)


def box(u: Field, v: Field, half_width: float, half_height: float, radius: float = 0.0) -> Field:
    """Return the signed distance to a rectangle about the origin with rounded corners."""
    across, down = np.abs(u) - (half_width - radius), np.abs(v) - (half_height - radius)
    outer = np.hypot(np.maximum(across, 0), np.maximum(down, 0))
    return np.asarray(outer + np.minimum(np.maximum(across, down), 0) - radius, dtype=np.float32)


def hexagon(u: Field, v: Field, apothem: float) -> Field:
    """Return the signed distance to the sides of a regular hexagon about the origin."""
    sides = [u * np.cos(a) + v * np.sin(a) for a in np.radians([0, 60, 120])]
    return np.asarray(np.max(np.abs(sides), axis=0) - apothem, dtype=np.float32)


def stroke(points: Sequence[tuple[float, float]], size: int) -> Field:
    """Return the distance, in the units of u and v, of every pixel from a polyline through ``points``."""
    canvas = np.full((size, size), 255, dtype=np.uint8)
    pixels = np.round((np.asarray(points) + 1) * (size / 2) - 0.5).astype(np.int32)
    cv2.polylines(canvas, [pixels.reshape(-1, 1, 2)], isClosed=False, color=0, thickness=1)
    return np.asarray(cv2.distanceTransform(canvas, cv2.DIST_L2, 5) * (2 / size), dtype=np.float32)


def wander(
    rng: np.random.Generator, start: tuple[float, float], degrees: float, length: float, bend: float, steps: int = 24
) -> list[tuple[float, float]]:
    """Return a path of ``steps`` points from ``start`` whose heading drifts by about ``bend`` degrees in all."""
    headings = np.radians(degrees + np.cumsum(rng.standard_normal(steps)) * bend / np.sqrt(steps))
    u = start[0] + np.cumsum(np.cos(headings)) * length / steps
    v = start[1] + np.cumsum(np.sin(headings)) * length / steps
    return [start, *zip(u.tolist(), v.tolist(), strict=True)]


def blob(
    rng: np.random.Generator, u: Field, v: Field, centre: tuple[float, float], radius: float, rough: float
) -> Field:
    """Return the signed distance, roughly, to an irregular round patch; ``rough`` is its relative unevenness."""
    du, dv = u - centre[0], v - centre[1]
    angle = np.arctan2(dv, du)
    wave = sum(rng.standard_normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 9))
    return np.asarray(np.hypot(du, dv) - radius * (1 + rough * wave), dtype=np.float32)
