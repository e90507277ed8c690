# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which images of a test have pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anomalib_hgad.evaluation.picture_selection import SAMPLED, WORST, Group, PictureSelection

GOOD, BAD = Group("bolt", anomalous=False), Group("bolt", anomalous=True)


def kept(group: Group, scores: np.ndarray) -> set[int]:
    selection, files = PictureSelection(), set()
    for number, score in enumerate(scores):
        wanted, replaced = selection.offer(group, float(score), Path(str(number)))
        files |= {number} if wanted else set()
        files -= {int(replaced.name)} if replaced is not None else set()
    assert selection.seen == len(scores)
    return files


def test_few_images_are_all_shown() -> None:
    assert kept(GOOD, np.arange(WORST + SAMPLED)) == set(range(WORST + SAMPLED))


def test_normal_images_of_the_highest_scores_are_shown() -> None:
    scores = np.random.default_rng(0).permutation(200)
    found = kept(GOOD, scores)
    assert len(found) == WORST + SAMPLED
    assert set(np.argsort(scores)[-WORST:]) <= found


def test_anomalous_images_of_the_lowest_scores_are_shown() -> None:
    scores = np.random.default_rng(0).permutation(200)
    assert set(np.argsort(scores)[:WORST]) <= kept(BAD, scores)


def test_groups_do_not_compete() -> None:
    selection = PictureSelection()
    for number in range(WORST + SAMPLED):
        for group in (GOOD, BAD, Group("nut", anomalous=None)):
            assert selection.offer(group, 0.5, Path(f"{group}{number}")) == (True, None)


def test_every_other_image_is_as_likely_to_be_in_the_sample() -> None:
    """Over the positions of images; a reservoir that favoured the first or last ones would be off by far."""
    counts = np.zeros(40)
    selection = PictureSelection()
    for trial in range(400):
        group = Group(str(trial), anomalous=False)
        files: set[int] = set()
        for number in range(45):
            # The last ones are the worst, so that the first 40 are the others.
            wanted, replaced = selection.offer(group, float(number), Path(str(number)))
            files |= {number} if wanted else set()
            files -= {int(replaced.name)} if replaced is not None else set()
        counts[sorted(files - set(range(40, 45)))] += 1
    expected = 400 * SAMPLED / 40
    assert np.abs(counts - expected).max() < 4.5 * np.sqrt(expected)
