# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a watch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomalib_hgad.deploy.watch.pictures import EDGE, draw, heat_colours, picture_path
from anomalib_hgad.deploy.watch.scorer import Scored


def test_colours_go_from_blue_over_green_to_red() -> None:
    colours = heat_colours(np.array([[0.0, 0.25, 0.5, 0.75, 1.0]]))[0]
    assert colours.tolist() == [[0, 0, 127], [0, 127, 255], [127, 255, 127], [255, 127, 0], [127, 0, 0]]


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (2.0, 90.0)])
def test_map_without_a_scale_has_its_own(low: float, high: float) -> None:
    anomaly_map = np.linspace(low, high, 5)[None]
    assert (heat_colours(anomaly_map) == heat_colours(np.linspace(0, 1, 5)[None])).all()


def test_map_of_one_number_beyond_the_scale_has_a_colour() -> None:
    assert heat_colours(np.full((2, 2), 7.0)).shape == (2, 2, 3)


def test_edge_is_around_what_was_found(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:15, 8:20] = True
    scored = Scored({}, "bad", np.zeros((20, 30), dtype=np.float32), mask)
    picture = np.asarray(draw(np.zeros((20, 30, 3), dtype=np.uint8), scored))
    is_edge = (picture == EDGE).all(axis=-1)
    inside, outside = np.zeros_like(mask), np.ones_like(mask)
    inside[6:14, 9:19], outside[4:16, 7:21] = True, False
    assert not is_edge[inside].any()
    assert not is_edge[outside].any()
    assert is_edge.sum() == 12 * 14 - 8 * 10


def test_picture_of_a_large_image_is_small_and_has_its_shape() -> None:
    scored = Scored({}, "good", np.zeros((16, 16), dtype=np.float32), np.zeros((16, 16), dtype=bool))
    assert draw(np.zeros((1000, 2000, 3), dtype=np.uint8), scored).size == (512, 256)


def test_model_without_maps_shows_the_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    assert (np.asarray(draw(pixels, Scored({}, "good", None, None))) == pixels).all()


def test_images_of_one_name_have_pictures_of_their_own() -> None:
    root, folder = Path("/line"), Path("/pictures")
    places = [picture_path(root / name, root, folder) for name in ("a.png", "a.tif", "b/a.png")]
    assert [str(place) for place in places] == [f"/pictures/{name}.jpg" for name in ("a.png", "a.tif", "b/a.png")]
