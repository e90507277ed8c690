# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A 16-pin integrated circuit, soldered to a green circuit board."""

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_hgad.demo.fields import Field, box, fractal, inside, noise, step, stroke, turned, wander
from anomalib_hgad.demo.scene import CANVAS, Pose, Scene, linear

KINDS = ("bent_pin", "solder_bridge", "scratch")

_BOARD, _TRACE, _TIN = linear(22, 74, 46), linear(34, 98, 58), linear(186, 188, 190)
_PLASTIC, _INK, _COPPER = linear(40, 40, 43), linear(172, 172, 168), linear(176, 138, 72)
_WIDTH, _HEIGHT, _PITCH = 0.74, 0.36, 0.18
_PINS = 8  # a side


def _folded(u: Field, v: Field) -> tuple[Field, Field, NDArray[np.intp]]:
    """Return the coordinates from the middle of the nearest pin's column, outwards, and which of the 16 pins it is."""
    column = np.clip(np.round(u / _PITCH + 3.5), 0, _PINS - 1)
    index = column.astype(np.intp) + np.where(v > 0, _PINS, 0)
    return np.asarray(u - _PITCH * (column - 3.5), dtype=np.float32), np.abs(v), index


def _board(rng: np.random.Generator, u: Field, v: Field) -> Scene:
    """Return the board with its traces, vias and pads."""
    weave = np.sin(u * 150) * np.sin(v * 150)
    tone = 1 + 0.04 * weave + 0.04 * noise(rng, CANVAS, 3) + 0.05 * noise(rng, CANVAS, CANVAS)
    scene = Scene.of((_BOARD * (1 + 0.04 * rng.uniform(-1, 1, 3)) * tone[..., None]).astype(np.float32), 0.02)
    du, dv, index = _folded(u, v)
    end = (0.80 + 0.06 * (index % 3)).astype(np.float32)
    trace = inside(np.maximum(np.abs(du) - np.float32(0.017), np.abs(dv - (0.58 + end) / 2) - (end - 0.58) / 2))
    scene.paint(trace, _TRACE, 0.03)
    scene.height += 0.8 * trace
    via = np.asarray(np.hypot(du, dv - end), dtype=np.float32)
    scene.paint(step(via, 0.047, 0.039), _COPPER, 0.12)
    scene.paint(step(via, 0.023, 0.015), _BOARD * 0.15)
    pad = inside(box(du, dv - np.float32(0.60), 0.054, 0.105, 0.012))
    scene.paint(pad, _TIN * 0.80, 0.10)
    scene.height += 1.0 * pad
    return scene


def _legs(scene: Scene, u: Field, v: Field, tint: Field | float) -> Field:
    """Draw one leg or all of them, from the body outwards along v, and return their coverage."""
    cover = inside(box(u, v - np.float32(0.46), 0.034, 0.145, 0.008))
    scene.cast_shadow(cover, 3, 0.55, 1.6)
    scene.lift_shadow(cover)
    # The gull wing falls from the body and lies flat on its pad: bright knee, darker slope, bright foot.
    slope = 0.45 + 0.65 * step(np.abs(v - np.float32(0.475)), 0.03, 0.065)
    scene.paint(cover, (_TIN * (tint * slope * (0.9 + 0.3 * step(u, 0.0, -0.03)))[..., None]).astype(np.float32), 0.12)
    scene.level(cover, 2.0 + 4.0 * step(v, 0.52, 0.42))
    return cover


def _pins(scene: Scene, rng: np.random.Generator, u: Field, v: Field, bent: np.random.Generator | None) -> Field:
    """Solder the 16 pins, one of them bent sideways if asked, and return the mask of that fault."""
    du, dv, index = _folded(u, v)
    tint = (1 + 0.06 * rng.uniform(-1, 1, 2 * _PINS))[index].astype(np.float32)
    wet = np.hypot(du, (dv - np.float32(0.615)) / np.float32(1.6)) - np.float32(0.045)
    scene.height += 3.0 * step(wet.astype(np.float32), 0.012, -0.03)
    if bent is None:
        _legs(scene, du, dv, tint)
        return np.zeros_like(u)
    number = int(bent.integers(2 * _PINS))
    away = np.where(index == number, np.float32(9), np.float32(0))
    _legs(scene, du + away, dv, tint)
    side = -1 if number < _PINS else 1
    pu, pv = u - np.float32(_PITCH * (number % _PINS - 3.5)), v * np.float32(side)
    straight = box(pu, pv - np.float32(0.46), 0.034, 0.145)
    pu, pv = turned(pu, pv - np.float32(0.35), float(bent.choice([-1, 1]) * bent.uniform(22, 34)))
    leg = _legs(scene, pu, pv + np.float32(0.35), 1.0)
    return np.asarray(((leg > 0.5) | (straight < 0)) & (np.abs(v) > _HEIGHT), dtype=np.float32)


def _marking(u: Field, v: Field) -> Field:
    """Return the coverage of the laser marking, in the part's frame."""
    plate = np.zeros((512, 512), dtype=np.uint8)
    for text, row, scale in (("HG7413D", 236, 1.25), ("2607 MX", 292, 1.0)):
        cv2.putText(plate, text, (152, row + 10), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 2, cv2.LINE_AA)
    where = ((u + 1) * 256).astype(np.float32), ((v + 1) * 256).astype(np.float32)
    return np.asarray(cv2.remap(plate, *where, cv2.INTER_LINEAR) / 255, dtype=np.float32)


def _bridge(scene: Scene, harm: np.random.Generator, u: Field, v: Field) -> Field:
    """Let a drop of solder join two or three neighbouring pins."""
    number = int(harm.integers(0, 7))
    side = harm.choice([-1.0, 1.0])
    du, dv = u - np.float32(_PITCH * (number - 3.0)), v * np.float32(side) - np.float32(harm.uniform(0.56, 0.62))
    distance = box(du, dv + 0.012 * np.cos(du * 16), 0.15, harm.uniform(0.05, 0.065), 0.05)
    distance = np.asarray(distance + 0.010 * noise(harm, CANVAS, 16), dtype=np.float32)
    drop = step(distance, 0.008, -0.008)
    scene.cast_shadow(drop, 2, 0.4, 2.0)
    scene.lift_shadow(drop)
    scene.paint(drop, _TIN * 0.85, 0.35)
    scene.level(drop, 3.0 + 7.0 * step(distance, 0.0, -0.06))
    return np.asarray(distance < 0.006, dtype=np.float32)


def _scratch(scene: Scene, harm: np.random.Generator, pose: Pose, body: Field) -> Field:
    start = pose.placed(harm.uniform(-0.55, 0.0), harm.uniform(-0.25, 0.25))
    heading = harm.uniform(-40, 40)
    mask = np.zeros_like(body)
    for _ in range(int(harm.integers(1, 3))):
        start = (start[0] + harm.uniform(-0.05, 0.05), start[1] + harm.uniform(-0.06, 0.06))
        distance = stroke(wander(harm, start, heading + harm.uniform(-6, 6), harm.uniform(0.4, 0.65), 25), CANVAS)
        width = harm.uniform(0.009, 0.013)
        cover = body * step(distance, width + 0.006, width - 0.005)
        scene.paint(cover, linear(150, 148, 146) * (1 + 0.2 * noise(harm, CANVAS, 90))[..., None], 0.1)
        scene.height -= 1.5 * cover
        mask = np.maximum(mask, body * (distance < width + 0.006))
    return np.asarray(mask, dtype=np.float32)


def draw(rng: np.random.Generator, kind: str | None, harm: np.random.Generator) -> tuple[Scene, Field]:
    """Return the scene and the mask of its defect, see ``products``."""
    pose = Pose.drawn(rng, 0.03, 2.5, 0.012)
    u, v = pose.coordinates()
    scene = _board(rng, u, v)
    mask = _pins(scene, rng, u, v, harm if kind == "bent_pin" else None)
    if kind == "solder_bridge":
        mask = _bridge(scene, harm, u, v)

    case = box(u, v, _WIDTH, _HEIGHT, 0.02)
    body = inside(case)
    scene.cast_shadow(body, 6, 0.6, 3.5)
    scene.lift_shadow(body)
    grain = 1 + 0.10 * noise(rng, CANVAS, 190) + 0.04 * fractal(rng, CANVAS, 5, 2)
    scene.paint(body, (_PLASTIC * grain[..., None]).astype(np.float32), 0.03)
    scene.level(body, 0.0)
    scene.height += 9 * step(case, 0.0, -0.045)
    scene.height += body * 0.35 * noise(rng, CANVAS, 190)
    dimple = np.asarray(np.hypot(u + np.float32(0.62), v - np.float32(0.24)), dtype=np.float32)
    scene.height -= 3 * step(dimple, 0.052, 0.035)
    notch = np.asarray(np.hypot(u + np.float32(_WIDTH), v), dtype=np.float32)
    scene.height -= 4 * step(notch, 0.085, 0.06) * body
    scene.paint(0.75 * _marking(u, v) * (1 + 0.1 * noise(rng, CANVAS, 120)).clip(0, 1.2), _INK)
    if kind == "scratch":
        mask = _scratch(scene, harm, pose, body)
    return scene, mask
