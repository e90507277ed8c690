# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Training images that a model holds out of its training."""

from __future__ import annotations

from copy import copy

from anomalib.data import AnomalibDataset


class HoldOut:
    """Lets a datamodule of several classes give up a share of its training images.

    The datamodule sets :attr:`train_data` to :attr:`_all_train_data` on every setup.

    Attributes:
        train_data: Images to train on. Their ``samples`` have a column ``class_index``.
    """

    train_data: AnomalibDataset
    _all_train_data: AnomalibDataset

    def hold_out(self, share: float) -> AnomalibDataset | None:
        """Take a share of every class's training images out of ``train_data``, until the next setup.

        The images are spread evenly over the class's file names: the choice is the same for the same images.

        Args:
            share: Share of the images of each class. At least one image is taken, and at least one is left.

        Returns:
            The images taken out; ``None`` if there are none.
        """
        samples = self._all_train_data.samples
        held_out: list[int] = []
        for _, rows in samples.groupby("class_index"):
            count = min(max(1, round(share * len(rows))), len(rows) - 1) if share else 0
            held_out.extend(rows.index[[(2 * number + 1) * len(rows) // (2 * count) for number in range(count)]])
        if not held_out:
            return None
        kept, taken = copy(self._all_train_data), copy(self._all_train_data)
        kept.samples, taken.samples = samples.drop(index=held_out), samples.loc[held_out]
        self.train_data = kept
        return taken
