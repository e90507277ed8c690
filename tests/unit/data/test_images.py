# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images that cannot be predicted are named; all others get a score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import PredictDataset
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_hgad import Hgad
from anomalib_hgad.data.images import NamingPredictDataset
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT
from tests.helpers.trees import write_image


@pytest.fixture(scope="module")
def model() -> Hgad:
    model = Hgad(**LIGHT, post_processor=False, visualizer=False)
    model.set_class_names(["bolt", "nut"])
    return model.eval()


def predict(model: Hgad, path: Path, **data: Any) -> list[Any]:
    return engine(path.parent / "results").predict(model, **(data or {"data_path": path}))


@pytest.mark.parametrize(
    ("mode", "size"), [("L", (40, 30)), ("RGBA", (40, 30)), ("P", (40, 30)), ("RGB", (1, 1)), ("RGB", (2000, 2))]
)
def test_every_image_gets_a_score(model: Hgad, tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    Image.new(mode, size).save(tmp_path / "image.png")
    (batch,) = predict(model, tmp_path)
    assert np.isfinite(batch.pred_score).all()
    assert batch.pred_class_name[0] in {"bolt", "nut", "unknown"}  # the model is not trained


def truncated(path: Path) -> None:
    write_image(path, size=(200, 200))
    path.write_bytes(path.read_bytes()[:2000])


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((20, 20), 40000, dtype=np.uint16)).save(path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.write_bytes(b""), "cannot identify"),
        (lambda path: path.write_text("this is text"), "cannot identify"),
        (truncated, "truncated|broken"),
        (trees.write_refused_image, "Truncated tRNS"),
        (sixteen_bits, "more than 8 bits .* convert it"),
    ],
    ids=["empty", "text", "truncated", "short chunk", "16 bits"],
)
@pytest.mark.parametrize("dataset", [False, True])
def test_what_cannot_be_read_is_named(model: Hgad, tmp_path: Path, write: Any, reason: str, dataset: bool) -> None:
    """Among images that can be."""
    folder = tmp_path / "images"
    write_image(folder / "image 1.png")
    write(folder / "image 7.png")
    data = {"dataset": PredictDataset(folder)} if dataset else {}
    with pytest.raises(
        OSError, match=rf"image 7\.png cannot be read: .*({reason}).*\. Replace the file or leave it out"
    ):
        predict(model, folder, **data)


def test_errors_of_a_transform_are_not_those_of_the_image(tmp_path: Path) -> None:
    def refuse(image: object) -> object:
        raise ValueError("of the transform")

    dataset = PredictDataset(write_image(tmp_path / "image.png"), transform=refuse)
    NamingPredictDataset.take_over(dataset)
    with pytest.raises(ValueError, match=r"^of the transform$"):
        dataset[0]


def test_image_of_too_many_pixels_is_named(model: Hgad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow refuses what may be a decompression bomb."""
    write_image(tmp_path / "large.png", size=(60, 60))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(OSError, match=r"large\.png cannot be read: Image size \(3600 pixels\) exceeds"):
        predict(model, tmp_path)


def test_empty_folder_is_named(model: Hgad, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"Found 0 images in .*nothing"):
        predict(model, tmp_path / "nothing")


def test_hidden_images_are_not_predicted(model: Hgad, tmp_path: Path) -> None:
    """A file that is asked for by its name is."""
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png", "._a.png", "sub/b.png"):
        write_image(tmp_path / ".cache/line" / name)
    batches = predict(model, tmp_path / ".cache/line")
    assert [Path(path).name for batch in batches for path in batch.image_path] == ["a.png", "b.png"]
    (batch,) = predict(model, tmp_path / ".cache/line/._a.png")
    assert Path(batch.image_path[0]).name == "._a.png"


def test_score_depends_on_no_other_image_of_the_batch(model: Hgad, tmp_path: Path) -> None:
    """anomalib resizes images of different sizes to the largest of a batch."""
    for width in (48, 200, 90):
        write_image(tmp_path / "images" / f"{width}.png", size=(width, 60))
    images = []
    for batch_size in (1, 3):
        dataset = PredictDataset(tmp_path / "images")
        loader = DataLoader(dataset, batch_size, collate_fn=dataset.collate_fn)
        batches = predict(model, tmp_path, dataloaders=loader)
        images.append(torch.cat([batch.image for batch in batches]))
    torch.testing.assert_close(images[1], images[0], rtol=1e-4, atol=1e-4)
