# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What lies under the demo's camera, and the camera.

A ``Scene`` holds, per pixel of its canvas, what a surface is made of; ``photograph`` lights it from the upper left, and
adds what a real line camera adds: uneven light, exposure, white balance, blur and sensor noise.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_hgad.demo.fields import Field, blurred, grid, turned

CANVAS = 384
Colour = tuple[float, float, float]


def linear(red: float, green: float, blue: float) -> NDArray[np.float32]:
    """Return the linear reflectance of an sRGB colour given in 0 to 255."""
    return np.asarray((np.array([red, green, blue]) / 255) ** 2.2, dtype=np.float32)


@dataclass(frozen=True)
class Pose:
    """Where a part lies: its centre on the canvas, its turn in degrees and its size."""

    centre: tuple[float, float]
    degrees: float
    scale: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, shift: float, degrees: float, scale: float) -> "Pose":
        """Return a pose off the nominal one by at most these amounts."""
        du, dv, turn, grow = rng.uniform(-1, 1, 4)
        return cls((du * shift, dv * shift), turn * degrees, 1 + grow * scale)

    def coordinates(self) -> tuple[Field, Field]:
        """Return the part's own coordinates of every pixel."""
        u, v = grid(CANVAS)
        u, v = turned(u - np.float32(self.centre[0]), v - np.float32(self.centre[1]), self.degrees)
        return u / np.float32(self.scale), v / np.float32(self.scale)

    def placed(self, u: float, v: float) -> tuple[float, float]:
        """Return where a point of the part lies on the canvas."""
        cos, sin = np.cos(np.radians(self.degrees)), np.sin(np.radians(self.degrees))
        along, down = self.scale * (cos * u - sin * v), self.scale * (sin * u + cos * v)
        return (float(self.centre[0] + along), float(self.centre[1] + down))


@dataclass
class Scene:
    """A surface on the canvas.

    Attributes:
        albedo: Linear reflectance, (S, S, 3).
        height: Height in pixels, (S, S).
        gloss: Strength of the highlight, (S, S), 0 for matt.
        shade: Factor on the light that arrives, (S, S).
    """

    albedo: NDArray[np.float32]
    height: Field
    gloss: Field
    shade: Field

    @classmethod
    def of(cls, colour: NDArray[np.float32], gloss: float = 0.0) -> "Scene":
        """Return a level surface of one colour, (3,), or of a colour per pixel, (S, S, 3)."""
        flat = np.zeros((CANVAS, CANVAS), dtype=np.float32)
        albedo = np.broadcast_to(colour, (CANVAS, CANVAS, 3)).astype(np.float32)
        return cls(albedo, flat.copy(), flat + np.float32(gloss), flat + 1)

    def paint(self, cover: Field, colour: NDArray[np.float32], gloss: float | Field = 0.0) -> None:
        """Lay an opaque colour, (3,) or (S, S, 3), and its gloss over the surface where ``cover`` is 1."""
        self.albedo += cover[..., None] * (colour - self.albedo)
        self.gloss += cover * (gloss - self.gloss)

    def level(self, cover: Field, height: float | Field) -> None:
        """Replace the height where ``cover`` is 1."""
        self.height += cover * (height - self.height)

    def cast_shadow(self, cover: Field, reach: float, depth: float, soft: float = 4.0) -> None:
        """Darken what lies to the lower right of a body; paint the body afterwards with ``lift_shadow``."""
        shift = np.array([[1, 0, reach], [0, 1, reach]], dtype=np.float32)
        fallen = cv2.warpAffine(cover, shift, (CANVAS, CANVAS))
        self.shade *= 1 - np.float32(depth) * blurred(np.asarray(fallen, dtype=np.float32), soft)

    def lift_shadow(self, cover: Field) -> None:
        """Give the full light back to a body that stands above the shadows."""
        self.shade += cover * (1 - self.shade)


def _lit(scene: Scene, azimuth: float, elevation: float) -> NDArray[np.float32]:
    """Return the radiance, (S, S, 3), under a lamp at these angles (degrees) and a bright ceiling."""
    slope_v, slope_u = np.gradient(scene.height)
    across = -np.cos(np.radians(elevation)) * np.cos(np.radians(azimuth))
    down = -np.cos(np.radians(elevation)) * np.sin(np.radians(azimuth))
    up = np.sin(np.radians(elevation))
    length = np.sqrt(1 + slope_u**2 + slope_v**2)
    facing = np.maximum(up - slope_u * across - slope_v * down, 0) / length
    half = np.array([across, down, up + 1]) / np.sqrt(across**2 + down**2 + (up + 1) ** 2)
    mirror = np.maximum(half[2] - slope_u * half[0] - slope_v * half[1], 0) / length
    diffuse = 0.35 / length + 0.65 * facing / up
    highlight = scene.gloss * mirror**40
    return np.asarray(
        scene.shade[..., None] * (scene.albedo * diffuse[..., None] + highlight[..., None]), dtype=np.float32
    )


def photograph(scene: Scene, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Return the picture, uint8 RGB (size, size, 3).

    The camera draws the same random numbers whatever it sees, so that two scenes differ only where their surfaces do.
    """
    azimuth, elevation, exposure, lean, blur = rng.uniform(-1, 1, 5)
    gains = 1 + 0.025 * rng.uniform(-1, 1, 3)
    grain = rng.standard_normal((size, size, 3)).astype(np.float32)
    radiance = _lit(scene, 45 + 8 * azimuth, 52 + 4 * elevation)
    u, v = grid(CANVAS)
    fall = 1 - 0.08 * (u * (0.7 + 0.3 * lean) + v) - 0.10 * (u**2 + v**2)
    radiance = radiance * (fall * (1 + 0.10 * exposure))[..., None] * gains
    image = cv2.resize(radiance.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    image = blurred(np.asarray(image, dtype=np.float32), 0.55 + 0.15 * blur)
    image = image / (1 + 0.18 * np.maximum(image, 0) ** 2)  # a soft shoulder, so that highlights keep their form
    image = np.maximum(image, 0) ** np.float32(1 / 2.2)
    image = image + grain * (0.008 + 0.008 * np.sqrt(np.maximum(image, 0)))
    return np.asarray(np.clip(image * 255 + 0.5, 0, 255), dtype=np.uint8)
