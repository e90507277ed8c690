# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The demo's drawn dataset and its small backbone."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open

from anomalib_hgad.demo import images
from anomalib_hgad.demo.backbone import BACKBONE, LAYERS, WEIGHTS, build_backbone
from anomalib_hgad.demo.images import MARKER, render, write_demo_dataset
from anomalib_hgad.demo.products import PRODUCTS

DEFECTS = [(product, kind) for product, (_, kinds) in PRODUCTS.items() for kind in kinds]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two training, one good and one picture per defect and class."""
    return write_demo_dataset(tmp_path_factory.mktemp("demo") / "set", train=2, good=1, per_kind=1)


def _files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_layout_is_that_of_mvtec(dataset: Path) -> None:
    expected = {MARKER}
    for product, (_, kinds) in PRODUCTS.items():
        expected |= {f"{product}/train/good/{number:03d}.png" for number in range(2)} | {f"{product}/test/good/000.png"}
        expected |= {f"{product}/test/{kind}/000.png" for kind in kinds}
        expected |= {f"{product}/ground_truth/{kind}/000_mask.png" for kind in kinds}
    assert set(_files(dataset)) == expected


@pytest.mark.slow
def test_same_seed_same_bytes_other_seed_other_bytes(dataset: Path, tmp_path: Path) -> None:
    again = _files(write_demo_dataset(tmp_path / "again", train=2, good=1, per_kind=1))
    assert again == _files(dataset)
    assert (render("nut", "train", 0, seed=1)[0] != render("nut", "train", 0, seed=0)[0]).any()


def test_no_picture_occurs_twice(dataset: Path) -> None:
    pictures = [content for name, content in _files(dataset).items() if "ground_truth" not in name]
    assert len(set(pictures)) == len(pictures)


def test_masks_are_binary_and_of_the_size_of_a_real_defect(dataset: Path) -> None:
    for path in dataset.glob("*/ground_truth/*/*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        assert mask.shape == (images.SIZE, images.SIZE)
        assert set(np.unique(mask)) == {0, 255}
        assert 0.002 < (mask == 255).mean() < 0.07, path


@pytest.mark.parametrize(("product", "kind"), DEFECTS)
def test_a_defect_changes_the_picture_where_its_mask_is_and_nowhere_else(product: str, kind: str) -> None:
    for number in (7, 8):
        faulty, mask = render(product, "test", number, kind)
        sound, nothing = render(product, "test", number)
        change = np.abs(faulty.astype(int) - sound).max(axis=-1)
        away = cv2.distanceTransform(np.asarray(mask == 0, dtype=np.uint8), cv2.DIST_L2, 5)
        assert not nothing.any()
        assert change[mask > 0].mean() > 12
        assert (change[mask > 0] > 6).mean() > 0.6
        # The camera's blur and a defect's shadow reach a little beyond it.
        assert change[away > 3].max() <= 40
        assert change[away > 14].max() <= 1


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="nut has the defects scratch, rust, nick, not 'hole'"):
        render("nut", "test", 0, "hole")


def test_a_whole_dataset_is_reused(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "render", None)  # drawing anything would fail
    assert write_demo_dataset(dataset, train=2, good=1, per_kind=1) == dataset


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path, *args: object) -> None:
        if folder.name == "fabric":
            raise KeyboardInterrupt
        write(folder, *args)  # type: ignore[arg-type]

    write = images._write_class
    monkeypatch.setattr(images, "_write_class", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_demo_dataset(tmp_path / "set", train=1, good=0, per_kind=0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_the_dataset_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="another version"):
        write_demo_dataset(dataset, train=3)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="is not the demo dataset"):
        write_demo_dataset(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_backbone_file_is_small_and_says_how_it_was_made() -> None:
    assert WEIGHTS.stat().st_size <= 3 * 2**20
    with safe_open(WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["model"] == BACKBONE
    assert metadata["layers"] == ",".join(LAYERS)
    assert metadata["licence"] == "Apache-2.0"
    assert {"teacher", "how", "steps", "seed"} <= set(metadata)


def test_backbone_loads_and_gives_maps_of_strides_8_and_16() -> None:
    model = build_backbone(weights=WEIGHTS).eval()
    with torch.no_grad():
        maps = model(torch.randn(2, 3, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps] == [(8, 12), (4, 6)]
    assert all(torch.isfinite(m).all() and m.std() > 0 for m in maps)
    for value in model.state_dict().values():
        assert torch.isfinite(value).all()
