# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Six two-coloured capsules in the clear pockets of an embossed aluminium blister."""

import numpy as np
from numpy.typing import NDArray

from anomalib_hgad.demo.fields import Field, blob, box, fractal, inside, noise, step, stroke, turned, wander
from anomalib_hgad.demo.scene import CANVAS, Pose, Scene, linear

KINDS = ("missing", "broken", "contamination")

_COLUMN, _ROW = 0.62, 0.48  # from the middle of the pack to the outer pockets
_POCKETS = tuple((column, row) for row in (-_ROW, _ROW) for column in (-_COLUMN, 0.0, _COLUMN))
_HALF_LENGTH, _RADIUS, _SEAM = 0.33, 0.135, 0.04
_FOIL, _CAP, _BODY, _POWDER = linear(178, 182, 188), linear(176, 44, 40), linear(226, 214, 188), linear(240, 236, 224)


def _foil(rng: np.random.Generator, u: Field, v: Field) -> Scene:
    """Return the foil, embossed with fine diamonds."""
    tone = 1 + 0.05 * noise(rng, CANVAS, 3) + 0.03 * noise(rng, CANVAS, CANVAS)
    scene = Scene.of(_FOIL * 0.8 * tone[..., None], 0.10)
    a, b = turned(u, v, 45)
    scene.height += 0.55 * (np.abs(np.sin(a * 42)) + np.abs(np.sin(b * 42))).astype(np.float32)
    scene.height += 1.6 * noise(rng, CANVAS, 5)
    return scene


def _folded(u: Field, v: Field) -> tuple[Field, Field, NDArray[np.intp]]:
    """Return the coordinates from the middle of the nearest pocket, and which of the six it is."""
    column = np.clip(np.round(u / _COLUMN), -1, 1)
    row = np.where(v < 0, -1, 1)
    index = (column + 1 + 3 * (row > 0)).astype(np.intp)
    return np.asarray(u - _COLUMN * column, dtype=np.float32), np.asarray(v - _ROW * row, dtype=np.float32), index


def _capsules(
    scene: Scene, rng: np.random.Generator, u: Field, v: Field, kind: str | None, harm: np.random.Generator
) -> Field:
    """Fill the pockets, (u, v) being the pack's coordinates, and return the mask of a missing or broken capsule."""
    u, v, index = _folded(u, v)
    shift, lean = rng.uniform(-0.012, 0.012, (2, 6)).astype(np.float32), rng.uniform(-5, 5, 6).astype(np.float32)
    tints = (1 + 0.06 * rng.uniform(-1, 1, (2, 6))).astype(np.float32)
    u, v = turned(u - shift[0][index], v - shift[1][index], lean[index])
    faulty = index == harm.integers(6)
    cap = v < _SEAM
    whole = box(u, v, _RADIUS, _HALF_LENGTH, _RADIUS)
    distance = whole + np.where(cap, 0, 0.007).astype(np.float32)
    mask = np.zeros_like(u)
    if kind == "missing":
        mask = np.asarray(faulty & (whole < 0.01), dtype=np.float32)
        distance = np.where(faulty, np.float32(1), distance)
    elif kind == "broken":
        # A jagged piece of the body is gone, and powder has run out.
        side = harm.choice([-1.0, 1.0]) * _RADIUS
        edge = 0.02 * noise(harm, CANVAS, 50) + 0.012 * noise(harm, CANVAS, 110)
        bite = blob(harm, u, v, (side, harm.uniform(0.10, 0.2)), harm.uniform(0.11, 0.14), 0.12) + edge
        spill = blob(harm, u, v, (side * 0.9, 0.22), 0.10, 0.2) + 0.035 * noise(harm, CANVAS, 70)
        crumbs = faulty * np.maximum((bite < 0) & (distance < 0), step(spill, 0.01, -0.02))
        distance = np.where(faulty, np.maximum(distance, -bite), distance)
        mask = np.asarray((crumbs > 0.1) & (distance >= 0), dtype=np.float32)
    body = inside(distance)
    scene.cast_shadow(body, 5, 0.55, 3.5)
    if kind == "broken":
        grain = 1 + 0.14 * noise(harm, CANVAS, 150)
        scene.paint(crumbs.astype(np.float32), (_POWDER * grain[..., None]).astype(np.float32))
        scene.height += (1.5 * crumbs * noise(harm, CANVAS, 130)).astype(np.float32)
    scene.lift_shadow(body)
    colour = np.where(cap[..., None], _CAP * tints[0][index][..., None], _BODY * tints[1][index][..., None])
    colour = colour * (1 - 0.35 * step(np.abs(v - np.float32(_SEAM)), 0.014, 0.0))[..., None]
    scene.paint(body, colour.astype(np.float32), 0.35)
    depth = np.clip(-whole, 0, _RADIUS) / _RADIUS
    dome = np.sqrt(1 - (1 - depth) ** 2)
    scene.level(body, (20 * dome + np.where(cap, 0.8, 0)).astype(np.float32))
    return mask


def _dirt(scene: Scene, harm: np.random.Generator, pose: Pose) -> Field:
    """Drop a hair and a few dark specks on the pack."""
    pocket = _POCKETS[harm.integers(len(_POCKETS))]
    u, v = pose.coordinates()
    spot = (pocket[0] + harm.uniform(-0.1, 0.1), pocket[1] + harm.uniform(-0.25, 0.25))
    distance = blob(harm, u, v, spot, harm.uniform(0.055, 0.075), 0.2) + 0.01 * fractal(harm, CANVAS, 40, 2)
    scene.paint(0.92 * step(distance, 0.008, -0.012), linear(40, 34, 28), 0.02)
    path = wander(harm, pose.placed(*spot), harm.uniform(0, 360), harm.uniform(0.35, 0.5), 220, 40)
    hair = stroke(path, CANVAS)
    scene.paint(0.85 * step(hair, 0.016, 0.007), linear(34, 26, 22), 0.02)
    return np.asarray((distance < 0.006) | (hair < 0.015), dtype=np.float32)


def draw(rng: np.random.Generator, kind: str | None, harm: np.random.Generator) -> tuple[Scene, Field]:
    """Return the scene and the mask of its defect, see ``products``."""
    pose = Pose.drawn(rng, 0.025, 1.5, 0.01)
    u, v = pose.coordinates()
    scene = _foil(rng, u, v)
    du, dv, _ = _folded(u, v)
    pocket = box(du, dv, _RADIUS + 0.055, _HALF_LENGTH + 0.06, _RADIUS + 0.05)
    scene.height += 3.5 * step(np.abs(pocket), 0.03, 0.0)
    floor = inside(pocket + np.float32(0.02))
    scene.level(floor, (0.8 * noise(rng, CANVAS, 14)).astype(np.float32))
    # The wall of the pocket keeps the light from the floor's border.
    tone = 0.40 + 0.22 * step(pocket, -0.03, -0.13) + 0.05 * noise(rng, CANVAS, 20)
    scene.paint(inside(pocket + np.float32(0.012)), (_FOIL * tone[..., None]).astype(np.float32), 0.04)
    mask = _capsules(scene, rng, u, v, kind, harm)
    # The clear dome over the pocket mirrors the lamp along its upper left shoulder.
    shoulder = step(np.abs(pocket + np.float32(0.028)), 0.014, 0.0) * step(du + dv, 0.12, -0.35)
    scene.albedo += (0.35 * shoulder * scene.shade.clip(0.4, 1))[..., None]
    if kind == "contamination":
        mask = _dirt(scene, harm, pose)
    return scene, mask
