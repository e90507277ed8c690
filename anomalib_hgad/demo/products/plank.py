# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A planed pine plank that fills the picture."""

import numpy as np

from anomalib_hgad.demo.fields import Field, blob, fractal, grid, noise, step, stroke, turned, wander
from anomalib_hgad.demo.scene import CANVAS, Scene, linear

KINDS = ("crack", "hole", "stain")

_EARLY, _LATE, _DARK = linear(222, 186, 136), linear(172, 120, 72), linear(58, 36, 22)


def _crack(scene: Scene, harm: np.random.Generator, lean: float) -> Field:
    start = (harm.uniform(-0.75, -0.15), harm.uniform(-0.7, 0.7))
    length = harm.uniform(0.6, 0.95)
    path = wander(harm, start, lean + harm.uniform(-6, 6), length, 30, 40)
    distance = stroke(path, CANVAS)
    along = np.clip((grid(CANVAS)[0] - start[0]) / length, 0, 1)
    width = 0.006 + harm.uniform(0.014, 0.022) * np.sqrt(np.sin(np.pi * along).clip(0)) * (
        1 + 0.25 * noise(harm, CANVAS, 20)
    )
    cover = step(np.asarray(distance - width, dtype=np.float32), 0.006, -0.006)
    scene.paint(cover, _DARK * 0.6)
    scene.height -= 3 * step(np.asarray(distance - width, dtype=np.float32), 0.02, -0.01)
    return np.asarray(distance < width + 0.006, dtype=np.float32)


def _hole(scene: Scene, harm: np.random.Generator) -> Field:
    """Bore one to three beetle holes with a pale rim of dust."""
    u, v = grid(CANVAS)
    mask = np.zeros_like(u)
    first = harm.uniform(-0.6, 0.6, 2)
    for number in range(int(harm.integers(1, 4))):
        heading = harm.uniform(0, 2 * np.pi) if number else 0.0
        centre = first + min(number, 1) * 0.26 * np.array([np.cos(heading), np.sin(heading)])
        radius = harm.uniform(0.06, 0.08)
        distance = blob(harm, u, v, (float(centre[0]), float(centre[1])), radius, 0.05)
        scene.paint(0.6 * step(distance, 0.03, 0.0), linear(236, 214, 172))
        scene.height -= 5 * step(distance, 0.015, -0.03)
        inner = step(distance - np.float32(0.012) * (u - v), 0.005, -0.012)
        scene.paint(inner, _DARK * (0.35 + 0.5 * step(distance, -radius, 0.0))[..., None])
        mask = np.maximum(mask, distance < 0.018)
    return np.asarray(mask, dtype=np.float32)


def _stain(scene: Scene, harm: np.random.Generator) -> Field:
    """Let a drop of ink soak in: it follows the grain and is darkest at its border."""
    u, v = grid(CANVAS)
    centre = (harm.uniform(-0.65, 0.65), harm.uniform(-0.65, 0.65))
    size = harm.uniform(0.17, 0.24)
    distance = blob(harm, centre[0] + (u - centre[0]) * np.float32(0.75), v, centre, size, 0.10)
    distance += 0.008 * noise(harm, CANVAS, (14, 120))
    wet = step(distance, 0.010, -0.025)
    border = step(np.abs(distance + 0.015), 0.025, 0.0)
    tint = harm.choice(np.array([[0.30, 0.34, 0.46], [0.40, 0.29, 0.25], [0.33, 0.31, 0.32]]))
    scene.albedo *= 1 - (wet * (0.80 + 0.35 * border))[..., None].clip(0, 1) * (1 - tint)
    return np.asarray(distance < -0.004, dtype=np.float32)


def draw(rng: np.random.Generator, kind: str | None, harm: np.random.Generator) -> tuple[Scene, Field]:
    """Return the scene and the mask of its defect, see ``products``."""
    lean = float(rng.uniform(-3, 3))
    u, v = turned(*grid(CANVAS), lean)
    # A flat saw cut through a tapering trunk: rings wide where the cut grazes them, fine where it is steep.
    heart = v - rng.uniform(-0.5, 0.5) + 0.05 * noise(rng, CANVAS, (2, 2))
    rings = np.sqrt(heart**2 + 0.25 * (1 + rng.uniform(0.12, 0.3) * u) ** 2) * rng.uniform(17, 23)
    rings = rings + 0.18 * noise(rng, CANVAS, (3, 10)) + 0.04 * noise(rng, CANVAS, (6, 90))
    phase = (rings % 1).astype(np.float32)
    late = step(phase, 0.25, 0.88) * step(phase, 1.0, 0.93) * (0.75 + 0.12 * noise(rng, CANVAS, (2, 30)))
    fibres = noise(rng, CANVAS, (14, 260))
    pores = step(noise(rng, CANVAS, (26, 300)), 1.5, 2.4)
    tone = 1 + rng.uniform(-0.07, 0.07) + 0.04 * fractal(rng, CANVAS, 2, 2) + 0.06 * fibres
    wood = _EARLY + (_LATE - _EARLY) * late[..., None]
    wood = wood * tone[..., None] * (1 - 0.4 * pores)[..., None] * (1 + rng.uniform(-0.04, 0.04, 3))
    scene = Scene.of(wood.astype(np.float32), 0.015)
    scene.height += 0.25 * late + 0.18 * fibres - 0.5 * pores
    mask = np.zeros_like(u)
    if kind == "crack":
        mask = _crack(scene, harm, lean)
    elif kind == "hole":
        mask = _hole(scene, harm)
    elif kind == "stain":
        mask = _stain(scene, harm)
    return scene, mask
