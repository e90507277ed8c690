# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A turned steel flange nut on a dark conveyor belt."""

import numpy as np

from anomalib_hgad.demo.fields import Field, blob, fractal, hexagon, inside, noise, step, stroke, wander
from anomalib_hgad.demo.scene import CANVAS, Pose, Scene, linear

KINDS = ("scratch", "rust", "nick")

_FLANGE, _HOLE, _APOTHEM, _CHAMFER = 0.80, 0.29, 0.53, 0.565
_STEEL, _BELT, _RUST = linear(176, 179, 184), linear(38, 40, 43), linear(120, 66, 30)


def _turned_steel(rng: np.random.Generator, radius: Field, angle: Field) -> Field:
    """Return the brightness of a face turned on a lathe: fine rings, and two bright lobes that face the lamp."""
    rings = np.interp(radius, np.linspace(0, 1.5, 220), rng.standard_normal(220))
    lobes = (0.5 + 0.5 * np.cos(2 * (angle - np.radians(45 + rng.uniform(-8, 8))))) ** 2
    return np.asarray(0.42 + 0.75 * lobes**1.5 + 0.05 * rings + 0.03 * noise(rng, CANVAS, 40), dtype=np.float32)


def _nick(harm: np.random.Generator, pose: Pose, u: Field, v: Field) -> Field:
    """Return the signed distance to a bite out of the flange's rim."""
    heading = harm.uniform(0, 2 * np.pi)
    centre = (_FLANGE * 1.01 * np.cos(heading), _FLANGE * 1.01 * np.sin(heading))
    return blob(harm, u, v, centre, harm.uniform(0.10, 0.15), 0.12)


def _scratch(scene: Scene, harm: np.random.Generator, pose: Pose, metal: Field) -> Field:
    heading = harm.uniform(0, 360)
    radius, turn = harm.uniform(0.42, 0.66), np.radians(heading)
    start = pose.placed(radius * np.cos(turn), radius * np.sin(turn))
    path = wander(harm, start, heading + harm.choice([-1, 1]) * harm.uniform(75, 125), harm.uniform(0.5, 0.8), 18)
    distance, width = stroke(path, CANVAS), harm.uniform(0.009, 0.013)
    cover = metal * step(distance, width + 0.006, width - 0.006)
    scene.height -= 2.2 * cover
    scene.paint(cover, linear(232, 234, 238), 0.25)
    scene.albedo *= (1 - 0.5 * metal * step(np.abs(distance - width - 0.008), 0.01, 0.0))[..., None]
    return np.asarray(metal * (distance < width + 0.012), dtype=np.float32)


def _rust(scene: Scene, harm: np.random.Generator, u: Field, v: Field, metal: Field) -> Field:
    heading, radius = harm.uniform(0, 2 * np.pi), harm.uniform(0.45, 0.68)
    centre = (radius * np.cos(heading), radius * np.sin(heading))
    distance = blob(harm, u, v, centre, harm.uniform(0.12, 0.17), 0.22) + 0.02 * fractal(harm, CANVAS, 24, 3)
    cover = metal * step(distance, 0.012, -0.03)
    tint = _RUST * (0.8 + 0.25 * fractal(harm, CANVAS, 50, 3))[..., None].clip(0.2, 2)
    scene.paint(0.9 * cover, tint.astype(np.float32), 0.0)
    scene.height += 0.8 * cover * noise(harm, CANVAS, 120)
    return np.asarray(metal * (distance < 0.006), dtype=np.float32)


def draw(rng: np.random.Generator, kind: str | None, harm: np.random.Generator) -> tuple[Scene, Field]:
    """Return the scene and the mask of its defect, see ``products``."""
    pose = Pose.drawn(rng, 0.03, 4, 0.015)
    u, v = pose.coordinates()
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    belt = 1 + 0.10 * fractal(rng, CANVAS, 60, 2) + 0.05 * noise(rng, CANVAS, 4)
    scene = Scene.of(_BELT * belt[..., None].clip(0.3, 2), 0.03)
    scene.height += 0.5 * noise(rng, CANVAS, 160)

    rim = np.asarray(radius - _FLANGE, dtype=np.float32)
    mask = np.zeros_like(u)
    if kind == "nick":
        bite = _nick(harm, pose, u, v)
        mask = np.asarray((bite < 0.04) & (rim < 0), dtype=np.float32)  # with the bevel round the bite
        rim = np.maximum(rim, -bite)
    prism = np.maximum(hexagon(u, v, _APOTHEM), radius - _CHAMFER - 0.03)
    hole = np.asarray(_HOLE - radius, dtype=np.float32)

    flange = inside(rim)
    scene.cast_shadow(flange, 9, 0.75)
    scene.lift_shadow(flange)
    scene.level(flange, 0.0)
    scene.paint(flange, _STEEL * _turned_steel(rng, radius, angle)[..., None], 0.05)
    scene.height += 7 * step(rim, 0.0, -0.045)
    top = inside(prism)
    scene.cast_shadow(top, 5, 0.5, 3.0)
    scene.lift_shadow(top)
    scene.paint(top, _STEEL * 1.12 * _turned_steel(rng, radius, angle)[..., None], 0.08)
    scene.height += 20 * step(prism, 0.0, -0.075)
    scene.height -= 8 * step(np.asarray(radius, dtype=np.float32), _HOLE + 0.055, _HOLE)
    if kind == "scratch":
        mask = _scratch(scene, harm, pose, flange * inside(hole))
    elif kind == "rust":
        mask = _rust(scene, harm, u, v, flange * inside(hole))

    bore = inside(-hole)
    thread = np.sin(radius * 150 + angle + 1.2 * np.cos(angle - np.pi / 4))
    depth = (radius / _HOLE) ** 3 * (0.55 + 0.45 * np.cos(angle - np.radians(45)))
    wall = _STEEL * (0.05 + 0.5 * depth * (0.55 + 0.45 * thread))[..., None]
    floor = _BELT * 0.25
    far = step(np.asarray(radius, dtype=np.float32), _HOLE * 0.55, _HOLE * 0.72)[..., None]
    scene.paint(bore, (floor * (1 - far) + wall * far).astype(np.float32), 0.0)
    scene.level(bore, 0.0)
    return scene, mask
