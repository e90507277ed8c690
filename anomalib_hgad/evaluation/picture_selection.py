# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Selects images of a test for pictures: those with the largest errors, and a sample."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

WORST = 5
"""Number of worst images, for the normal and for the anomalous images of each class."""

SAMPLED = 5
"""Number of sampled other images, likewise."""


class Group(NamedTuple):
    """Images that compete for pictures."""

    class_name: str | None
    anomalous: bool | None


@dataclass
class _Kept:
    worst: list[tuple[float, Path]] = field(default_factory=list)
    sample: list[Path] = field(default_factory=list)
    others: int = 0
    """Number of images that are not among the worst."""


class PictureSelection:
    """Selects images one by one, without knowing their number in advance.

    The worst are the normal images with the highest and the anomalous images with the lowest scores. Each of the others
    is equally likely to be in the sample, which is the same in every run.
    """

    def __init__(self) -> None:
        self._groups: dict[Group, _Kept] = defaultdict(_Kept)
        self._random = random.Random(0)  # noqa: S311  # no secret
        self.seen = 0

    def offer(self, group: Group, score: float, place: Path) -> tuple[bool, Path | None]:
        """Decide on the picture of an image.

        Args:
            group: The images that it is compared with.
            score: Its anomaly score.
            place: File of its picture.

        Returns:
            Whether it is kept, and the file that it replaces, if any.
        """
        self.seen += 1
        kept = self._groups[group]
        wrong = -score if group.anomalous else score
        kept.worst.append((wrong, place))
        kept.worst.sort(key=lambda one: one[0], reverse=True)
        if len(kept.worst) <= WORST:
            return True, None
        _, other = kept.worst.pop()
        out = self._sample(kept, other)
        return out != place, out if out != place else None

    def _sample(self, kept: _Kept, place: Path) -> Path | None:
        """Offer a picture to the sample by reservoir sampling; return the picture that is left out, if any."""
        kept.others += 1
        if len(kept.sample) < SAMPLED:
            kept.sample.append(place)
            return None
        row = self._random.randrange(kept.others)
        if row >= SAMPLED:
            return place
        kept.sample[row], out = place, kept.sample[row]
        return out
