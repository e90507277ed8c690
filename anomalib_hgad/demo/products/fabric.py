# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A blue twill, woven of single yarns."""

import numpy as np

from anomalib_hgad.demo.fields import Field, blob, fractal, grid, noise, step, stroke, turned, wander
from anomalib_hgad.demo.scene import CANVAS, Scene, linear

KINDS = ("missing_yarn", "hole", "oil")

_YARNS = 30  # across the picture, so about 8.5 pixels each
_WARP, _WEFT = linear(66, 96, 142), linear(196, 198, 196)


def _yarn(across: Field) -> Field:
    """Return the round profile of yarns of width 1, given the coordinate across them."""
    offset = across - np.floor(across) - 0.5
    return np.asarray(np.sqrt(np.clip(1 - (offset / 0.5) ** 2, 0, 1)), dtype=np.float32)


def _missing(harm: np.random.Generator, across: Field, along: Field) -> Field:
    """Return where two neighbouring warp yarns are gone."""
    first = harm.integers(4, _YARNS - 6)
    count = 2
    start = harm.uniform(2, _YARNS * 0.45)
    length = harm.uniform(0.3, 0.55) * _YARNS
    index = np.floor(across)
    gone = (index >= first) & (index < first + count)
    return np.asarray(gone & (along > start) & (along < start + length), dtype=np.float32)


def _hole(scene: Scene, harm: np.random.Generator, across: Field, along: Field) -> Field:
    """Tear a hole whose border follows the yarns, with loose ends across it."""
    u, v = grid(CANVAS)
    centre = (float(harm.uniform(-0.65, 0.65)), float(harm.uniform(-0.65, 0.65)))
    fray = 0.05 * harm.standard_normal(4 * _YARNS)
    ends = fray[np.floor(across).astype(int) % _YARNS] + fray[2 * _YARNS + np.floor(along).astype(int) % _YARNS]
    distance = blob(harm, u, v, centre, harm.uniform(0.13, 0.18), 0.10) + 0.6 * ends.astype(np.float32)
    gap = step(distance, 0.006, -0.006)
    scene.paint(gap, linear(24, 22, 22))
    scene.level(gap, -3.0)
    mask = distance < 0.008
    for _ in range(4):
        path = wander(harm, (centre[0], centre[1] + harm.uniform(-0.1, 0.1)), harm.uniform(0, 360), 0.2, 60)
        loose = stroke(path, CANVAS)
        cover = step(loose, 0.012, 0.005)
        scene.paint(cover, _WARP * harm.uniform(0.9, 1.5))
        scene.level(cover, 2.0)
        mask = mask | (loose < 0.012)
    return np.asarray(mask, dtype=np.float32)


def _oil(scene: Scene, harm: np.random.Generator) -> Field:
    u, v = grid(CANVAS)
    centre = (harm.uniform(-0.65, 0.65), harm.uniform(-0.65, 0.65))
    distance = blob(harm, u, v, centre, harm.uniform(0.19, 0.26), 0.12) + 0.015 * fractal(harm, CANVAS, 16, 2)
    wet = step(distance, 0.02, -0.05)
    scene.albedo *= 1 - wet[..., None] * (1 - np.array([0.36, 0.30, 0.20], dtype=np.float32))
    scene.gloss += 0.05 * wet
    return np.asarray(distance < 0.0, dtype=np.float32)


def draw(rng: np.random.Generator, kind: str | None, harm: np.random.Generator) -> tuple[Scene, Field]:
    """Return the scene and the mask of its defect, see ``products``."""
    u, v = turned(*grid(CANVAS), float(rng.uniform(-2.5, 2.5)))
    phase = rng.uniform(0, 4, 2)
    across = (u + 1) * (_YARNS / 2) + 0.25 * noise(rng, CANVAS, (3, 3)) + 0.05 * noise(rng, CANVAS, (30, 6)) + phase[0]
    along = (v + 1) * (_YARNS / 2) + 0.25 * noise(rng, CANVAS, (3, 3)) + 0.05 * noise(rng, CANVAS, (6, 30)) + phase[1]
    across, along = across.astype(np.float32), along.astype(np.float32)
    warp_index, weft_index = np.floor(across).astype(int), np.floor(along).astype(int)
    shades = rng.standard_normal((2, 97))
    mask = _missing(harm, across, along) if kind == "missing_yarn" else np.zeros_like(u)

    over = ((warp_index + weft_index) % 3 != 0) & (mask == 0)
    # A yarn that dives under its neighbour is lowest where it does.
    dive = np.abs(np.sin(np.pi * along / 1.0)).astype(np.float32)
    warp_height = _yarn(across) * (0.75 + 0.25 * dive)
    weft_height = _yarn(along) * 0.9
    ply_warp = np.sin(2 * np.pi * (1.6 * across + 1.2 * along))
    ply_weft = np.sin(2 * np.pi * (1.2 * across + 1.6 * along))
    warp = (
        _WARP
        * (1 + 0.10 * shades[0][warp_index % 97] + 0.10 * ply_warp + 0.08 * noise(rng, CANVAS, (60, 12)))[..., None]
    )
    weft = (
        _WEFT
        * (1 + 0.08 * shades[1][weft_index % 97] + 0.10 * ply_weft + 0.08 * noise(rng, CANVAS, (12, 60)))[..., None]
    )
    deep = np.where(over, warp_height, weft_height)
    if kind == "missing_yarn":
        deep = deep * (1 - mask * (1 - 0.75 * deep))  # loose weft lies lower, with gaps between its yarns
    cloth = np.where(over[..., None], warp, weft) * (0.30 + 0.70 * deep)[..., None]
    fuzz = 1 + 0.06 * noise(rng, CANVAS, CANVAS) + 0.03 * fractal(rng, CANVAS, 3, 2)
    scene = Scene.of((cloth * fuzz[..., None] * (1 + 0.05 * rng.uniform(-1, 1, 3))).astype(np.float32))
    scene.height += 3.2 * deep.astype(np.float32)
    if kind == "hole":
        mask = _hole(scene, harm, across, along)
    elif kind == "oil":
        mask = _oil(scene, harm)
    return scene, mask
