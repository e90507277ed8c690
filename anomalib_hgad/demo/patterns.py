# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Endless random pictures of nothing in particular: what the demo's backbone is distilled on.

Natural images are, to a first approximation, opaque objects of all sizes that hide each other and carry textures of all
spectra under uneven light. ``picture`` draws such things, and knows nothing of the demo's products.
Pictures are float32 RGB in [0, 1], (S, S, 3).
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from anomalib_hgad.demo.fields import Field, blob, blurred, box, fractal, grid, noise, step, stroke, turned, wander

Picture = NDArray[np.float32]


def _unit(field: Field) -> Field:
    low, high = np.percentile(field[::4, ::4], (2, 98))
    return np.asarray(np.clip((field - low) / max(high - low, 1e-6), 0, 1), dtype=np.float32)


def _colour(rng: np.random.Generator) -> Field:
    grey = rng.uniform(0, 1)
    return np.clip(grey + rng.uniform(0, 0.5) * rng.standard_normal(3), 0, 1).astype(np.float32)


def _painted(rng: np.random.Generator, field: Field) -> Picture:
    """Map a field in [0, 1] through a random palette of two to four colours."""
    count = int(rng.integers(2, 5))
    palette = np.stack([_colour(rng) for _ in range(count)])
    knots = np.linspace(0, 1, count)
    return np.stack([np.interp(field, knots, palette[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def _spectrum(rng: np.random.Generator, size: int) -> Field:
    """Noise with a power-law spectrum, stretched along a random direction."""
    frequency = np.fft.fftfreq(size).astype(np.float32)
    along, across = turned(*np.meshgrid(frequency, frequency), rng.uniform(0, 180))
    radius = np.hypot(along * 2 ** rng.uniform(0, 4), across) + 1 / size
    wave = np.fft.fft2(rng.standard_normal((size, size))) * radius ** -rng.uniform(0.3, 2.5)
    return _unit(np.real(np.fft.ifft2(wave)).astype(np.float32))


def _cells(rng: np.random.Generator, size: int) -> Field:
    """Voronoi cells: flat ones, their walls, or the distance from their seeds."""
    count = int(2 ** rng.uniform(3, 9))
    seeds = rng.uniform(-1.1, 1.1, (count, 2)) * np.array([1, 2 ** rng.uniform(-1, 1)])
    u, v = grid(size)
    bend = rng.uniform(0, 0.08)
    where = np.stack([u + bend * noise(rng, size, 8), v + bend * noise(rng, size, 8)], axis=-1)
    distance, index = cKDTree(seeds).query(where, k=2)
    style = rng.integers(3)
    if style == 0:
        return np.asarray(rng.uniform(0, 1, count)[index[..., 0]], dtype=np.float32)
    if style == 1:
        return step((distance[..., 1] - distance[..., 0]).astype(np.float32), 0, rng.uniform(0.01, 0.08))
    return _unit(distance[..., 0].astype(np.float32))


def _grating(rng: np.random.Generator, size: int) -> Field:
    """Stripes, checks, weaves and rings, more or less regular."""
    u, v = turned(*grid(size), rng.uniform(0, 180))
    bend = rng.choice([0.0, 0.02, 0.1])
    u, v = u + bend * noise(rng, size, 5), v + bend * noise(rng, size, 5)
    lines = 2 ** rng.uniform(1.5, 5.2)
    style = rng.integers(5)
    if style == 0:
        wave = np.sin(np.pi * lines * u)
    elif style == 1:
        wave = np.sin(np.pi * lines * u) * np.sin(np.pi * lines * v * rng.uniform(0.5, 2))
    elif style == 2:
        wave = np.sin(np.pi * lines * np.hypot(u - rng.uniform(-1, 1), v - rng.uniform(-1, 1)))
    elif style == 3:
        over = (np.floor(lines * u) + rng.integers(1, 3) * np.floor(lines * v)) % rng.integers(2, 4) == 0
        wave = np.where(over, np.abs(np.sin(np.pi * lines * u)), 0.7 * np.abs(np.sin(np.pi * lines * v)))
    else:
        wave = np.maximum(np.cos(np.pi * lines * u), np.cos(np.pi * lines * v))
        wave = step(wave.astype(np.float32), rng.uniform(0, 0.9), 1)
    return _unit((wave * rng.uniform(1, 6)).clip(-1, 1).astype(np.float32))


def _ramp(rng: np.random.Generator, size: int) -> Field:
    """A gradient, straight or round, with a little grain."""
    u, v = turned(*grid(size), rng.uniform(0, 360))
    field = u if rng.uniform() < 0.5 else np.hypot(u - rng.uniform(-1, 1), v)
    return _unit(field + rng.uniform(0, 0.15) * noise(rng, size, size))


def _cloud(rng: np.random.Generator, size: int) -> Field:
    return _unit(fractal(rng, size, rng.uniform(2, 12), int(rng.integers(1, 6)), rng.uniform(0.4, 0.9)))


_TEXTURES: tuple[Callable[[np.random.Generator, int], Field], ...] = (
    _spectrum,
    _spectrum,
    _cells,
    _grating,
    _ramp,
    _cloud,
)


def texture(rng: np.random.Generator, size: int) -> Picture:
    """Return one random texture that fills the picture, contrast anywhere from faint to full."""
    picture = _painted(rng, _TEXTURES[rng.integers(len(_TEXTURES))](rng, size))
    if rng.uniform() < 0.4:
        mean = picture.mean(axis=(0, 1))
        picture = mean + (picture - mean) * np.float32(rng.uniform(0.1, 0.6))
    return picture


def _shape(rng: np.random.Generator, size: int, radius: float) -> Field:
    """Return the signed distance to a random patch, bar, polygon, ring or letter."""
    centre = (rng.uniform(-1, 1), rng.uniform(-1, 1))
    u, v = grid(size)
    style = rng.integers(5)
    if style == 0:
        return blob(rng, u, v, centre, radius, rng.choice([0.0, 0.1, 0.3]))
    if style == 4:
        canvas = np.zeros((size, size), dtype=np.uint8)
        origin = (int((centre[0] + 1) * size / 2), int((centre[1] + 1) * size / 2))
        word = "".join(rng.choice(list("ABCDEFGHKLMNPRSTXYZ0123456789"), rng.integers(1, 6)))
        cv2.putText(canvas, word, origin, int(rng.integers(8)), size * radius / 30, 255, int(rng.integers(1, 4)))
        return np.asarray(0.5 - canvas / 255, dtype=np.float32) * np.float32(0.02)
    u, v = turned(u - np.float32(centre[0]), v - np.float32(centre[1]), rng.uniform(0, 180))
    if style == 1:
        return box(u, v, radius, radius * 2 ** -rng.uniform(0, 4), radius * rng.choice([0.0, 0.05]))
    if style == 2:
        angles = np.radians(np.sort(rng.uniform(0, 360, rng.integers(3, 8))))
        sides = [u * np.cos(a) + v * np.sin(a) - radius * rng.uniform(0.6, 1) for a in angles]
        return np.asarray(np.max(sides, axis=0), dtype=np.float32)
    return np.asarray(np.abs(np.hypot(u, v) - radius) - radius * rng.uniform(0.05, 0.5), dtype=np.float32)


def _relief(rng: np.random.Generator, height: Field) -> Field:
    """Return the light on a surface of this height under a slanting lamp, about 1 where it is level."""
    slope_v, slope_u = np.gradient(height)
    angle = rng.uniform(0, 2 * np.pi)
    lit = 1 - (np.cos(angle) * slope_u + np.sin(angle) * slope_v)
    return np.asarray(np.clip(lit, 0.2, 2), dtype=np.float32)


def _add_objects(rng: np.random.Generator, picture: Picture) -> Picture:
    size = picture.shape[0]
    for _ in range(int(rng.choice([1, 3, 8, 16]))):
        radius = float(np.clip(0.05 / rng.uniform(0.05, 1), 0.03, 0.9))
        distance = _shape(rng, size, radius)
        soft = rng.choice([0.008, 0.008, 0.03])
        cover = step(distance, soft, -soft)[..., None]
        fill = texture(rng, size) if rng.uniform() < 0.35 else np.broadcast_to(_colour(rng), picture.shape)
        if rng.uniform() < 0.4:
            rim = rng.uniform(0.02, 0.2)
            fill = fill * _relief(rng, rng.uniform(-8, 8) * step(distance, 0, -rim))[..., None]
        if rng.uniform() < 0.3:
            shade = np.roll(step(distance, 0.04, -0.02), rng.integers(-6, 7, 2), axis=(0, 1))[..., None]
            picture = picture * (1 - rng.uniform(0.2, 0.7) * shade)
        picture = (picture * (1 - cover) + fill * cover).astype(np.float32)
    return picture


def _add_marks(rng: np.random.Generator, picture: Picture) -> Picture:
    size = picture.shape[0]
    for _ in range(int(rng.integers(1, 8))):
        start = (rng.uniform(-1, 1), rng.uniform(-1, 1))
        path = wander(rng, start, rng.uniform(0, 360), rng.uniform(0.1, 1.5), rng.choice([0, 30, 120]))
        width = rng.uniform(0.004, 0.03)
        cover = rng.uniform(0.4, 1) * step(stroke(path, size), width + 0.01, width)[..., None]
        picture = (picture * (1 - cover) + _colour(rng) * cover).astype(np.float32)
    return picture


def picture(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Return one random RGB picture, uint8 (S, S, 3)."""
    image = texture(rng, size)
    if rng.uniform() < 0.75:
        image = _add_objects(rng, image)
    if rng.uniform() < 0.4:
        image = _add_marks(rng, image)
    if rng.uniform() < 0.5:
        image = image * (1 + rng.uniform(0, 0.3) * noise(rng, size, 2))[..., None]
    if rng.uniform() < 0.5:
        image = blurred(image.astype(np.float32), rng.uniform(0.4, 2))
    image = image + rng.choice([0.0, 0.01, 0.04]) * rng.standard_normal(image.shape)
    return np.asarray(np.clip(image * 255 + 0.5, 0, 255), dtype=np.uint8)
