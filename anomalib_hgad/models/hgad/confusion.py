# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks whether images of an added product show one that the model already knows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from anomalib_hgad.models.hgad.novelty import NOVELTY_LIMIT
from anomalib_hgad.models.hgad.torch_model import HgadModel, LevelReading

PARTS = 5
"""Parts of the images of a class, each scored by a Gaussian of the others."""

NAMED_IMAGES = 3
"""Maximum number of images that a message lists."""


class Confusion:
    """Finds images of added classes that a fit without them would assign to a class that the model knows.

    Args:
        model: The model.
        with_parts: The model with the added classes and, from ``first`` on, each of these without a part of its images.
        first: The first class without a part.
        names: Names of all classes, the added ones last.
        num_added: A.
    """

    def __init__(
        self, model: HgadModel, with_parts: HgadModel, first: int, names: Sequence[str], num_added: int
    ) -> None:
        self._model = model
        self._with_parts = with_parts
        self._first = first
        self._names = names
        self._known: list[tuple[str, str, str]] = []
        self.taken_for: list[dict[str, int]] = [{} for _ in range(num_added)]

    def add(self, readings: Sequence[LevelReading], part: torch.Tensor, paths: Sequence[str]) -> None:
        """Add a batch.

        Args:
            readings: The readings of the levels.
            part: Part of each image, shape (B,).
            paths: Files of the images.
        """
        nearest = self._model.class_posterior(readings).argmax(dim=-1)
        both = torch.stack((nearest, self._first + part), dim=-1)
        evidence = self._with_parts.class_evidence(readings, both)
        novelty = self._model.novelty(self._model.level_scores(readings, nearest), nearest)
        confused = evidence[:, 0] > evidence[:, 1]
        for row in confused.nonzero().flatten().tolist():
            added, name = int(part[row]) // PARTS, self._names[int(nearest[row])]
            self.taken_for[added][name] = self.taken_for[added].get(name, 0) + 1
            if novelty[row] <= NOVELTY_LIMIT:
                self._known.append((paths[row], self._names[added - len(self.taken_for)], name))

    def check(self) -> None:
        """Refuse images of products that the model knows.

        Raises:
            ValueError: If there are any.
        """
        if self._known:
            listed = ", ".join(f"{path} ({known})" for path, _, known in self._known[:NAMED_IMAGES])
            more = f" and {len(self._known) - NAMED_IMAGES} more" if len(self._known) > NAMED_IMAGES else ""
            added = ", ".join(sorted({name for _, name, _ in self._known}))
            msg = (
                f"Expected images of {added} only; {len(self._known)} of them resemble a product that the model knows "
            )
            msg += f"more than the others: {listed}{more}. Remove them; if two products look so much alike, "
            msg += "train one model on all of them."
            raise ValueError(msg)
