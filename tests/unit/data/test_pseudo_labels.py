# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Classes for images that nobody has labelled."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import adjusted_rand_score
from torchvision.transforms.v2 import Compose, Identity

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.common.encoder import PyramidEncoder
from anomalib_hgad.data.hold_out import hold_out
from anomalib_hgad.data.pseudo_labels import accepted_size, cluster, describe, ranks_of_first
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT

COLOURS = {"apple": (200, 40, 40), "leaf": (40, 180, 40), "sky": (40, 80, 220)}


def tint(path: Path, colour: tuple[int, int, int]) -> None:
    """Give an image a colour and leave its noise."""
    pixels = np.array(Image.open(path).convert("RGB")).astype(float) - 100 + np.array(colour)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products of three colours: in a folder each, all in one, and some as references."""
    root = tmp_path_factory.mktemp("colours")
    for name, colour in COLOURS.items():
        trees.mvtec_class(root / "sorted" / name)
        for path in (root / "sorted" / name).rglob("*.png"):
            if "ground_truth" not in path.parts:
                tint(path, colour)
                relative = path.relative_to(root / "sorted" / name)
                mixed = root / "mixed" / "all" / relative.with_name(f"{path.stem}_{name}.png")
                mixed.parent.mkdir(parents=True, exist_ok=True)
                mixed.write_bytes(path.read_bytes())
        for number in range(2):
            tint(trees.write_image(root / "references" / name / f"{number}.png"), colour)
    torch.manual_seed(0)
    save_file(timm.create_model("resnet18").state_dict(), root / "resnet18.safetensors")
    return root


def mixed(folder: Path, **settings: Any) -> MultiClass:
    loading = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0}
    weights = folder / "resnet18.safetensors"
    return MultiClass(root=folder / "mixed", label_weights=weights, **loading, **settings)


def truth(samples: Any) -> list[str]:
    return [Path(path).stem.rpartition("_")[2] for path in samples["image_path"]]


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, pytest.param(None, marks=pytest.mark.nightly)])
def test_clusters_are_the_products(folder: Path, number: int | None) -> None:
    """Normal and anomalous, training and test images; the number is found where it is not given."""
    datamodule = mixed(folder, labels="cluster", num_clusters=number)
    assert datamodule.class_names == []
    datamodule.setup()
    assert datamodule.class_names == ["cluster_00", "cluster_01", "cluster_02"]
    for data in (datamodule.train_data, datamodule.test_data):
        assert adjusted_rand_score(truth(data.samples), data.samples["class_index"]) == 1
    train = dict(zip(truth(datamodule.train_data.samples), datamodule.train_data.samples["class_name"], strict=True))
    test = dict(zip(truth(datamodule.test_data.samples), datamodule.test_data.samples["class_name"], strict=True))
    assert train == test
    first = datamodule.train_data.samples.drop_duplicates("class_name")
    assert first["class_name"].to_list() == datamodule.class_names


@pytest.mark.slow
@pytest.mark.nightly
def test_every_process_finds_the_same(folder: Path) -> None:
    first, second = mixed(folder, labels="cluster"), mixed(folder, labels="cluster")
    first.setup()
    second.setup()
    assert first.train_data.samples.equals(second.train_data.samples)


@pytest.mark.slow
def test_references_name_the_classes(folder: Path) -> None:
    datamodule = mixed(folder, labels="references", references=folder / "references")
    assert datamodule.class_names == list(COLOURS)
    datamodule.setup()
    for data in (datamodule.train_data, datamodule.test_data):
        assert data.samples["class_name"].to_list() == truth(data.samples)


@pytest.mark.slow
def test_batches_carry_them(folder: Path) -> None:
    datamodule = mixed(folder, labels="references", references=folder / "references")
    datamodule.setup()
    _, held_out = hold_out(datamodule.train_data, 0.25)
    assert sorted(truth(held_out.samples)) == list(COLOURS)  # of each class a quarter of four
    for batch in datamodule.test_dataloader():
        assert [Path(path).stem.rpartition("_")[2] for path in batch.image_path] == batch.class_name
        assert [datamodule.class_names[index] for index in batch.class_index] == batch.class_name


@pytest.mark.slow
def test_labels_of_folders_are_replaced(folder: Path) -> None:
    """Every form of the data can be labelled anew; the folders say nothing then."""
    weights = folder / "resnet18.safetensors"
    datamodule = MultiClass(root=folder / "sorted", labels="cluster", num_clusters=2, label_weights=weights)
    datamodule.setup()
    assert datamodule.class_names == ["cluster_00", "cluster_01"]
    assert set(datamodule.train_data.samples["class_index"]) == {0, 1}


@pytest.mark.slow
def test_model_learns_them(folder: Path, tmp_path: Path) -> None:
    model = Hgad(**LIGHT, seed=0, visualizer=False)
    engine(tmp_path).train(model, datamodule=mixed(folder, labels="cluster", num_clusters=3))
    assert model.class_names == ["cluster_00", "cluster_01", "cluster_02"]
    assert set(model.evaluator.results.classes) == set(model.class_names)


def test_too_few_images() -> None:
    with pytest.raises(ValueError, match="at least 5 different training images to cluster, got 2"):
        cluster(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), 5)
    with pytest.raises(ValueError, match="at least 3 different"):
        cluster(np.array([[0.0, 1.0], [1.0, 0.0]]), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": "clusters"}, "labels to be one of 'given', 'cluster', 'references'"),
        ({"num_clusters": 3}, "num_clusters >= 1 together with labels='cluster'"),
        ({"labels": "cluster", "num_clusters": 0}, "num_clusters >= 1"),
        ({"labels": "references"}, "expected both or neither"),
        ({"references": "somewhere"}, "expected both or neither"),
        ({"labels": "cluster", "label_backbone": "resnet19"}, "timm has no model 'resnet19'. Similar names: resnet18"),
    ],
)
def test_settings_that_do_not_go_together(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixed(folder, **settings)


def test_no_references(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder at"):
        mixed(folder, labels="references", references=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no subfolder"):
        mixed(folder, labels="references", references=tmp_path)
    trees.write_image(tmp_path / "apple/0.png")
    with pytest.raises(ValueError, match=r"has 1 subfolder\. Expected .* at least two classes"):
        mixed(folder, labels="references", references=tmp_path)
    (tmp_path / "leaf").mkdir()
    with pytest.raises(ValueError, match=r"has no images of leaf\. Expected a few"):
        mixed(folder, labels="references", references=tmp_path)


@pytest.mark.parametrize("name", ["unknown", "mean", "pooled"])
def test_names_of_references_are_those_of_classes(folder: Path, tmp_path: Path, name: str) -> None:
    for written in ("apple", unicodedata.normalize("NFD", "Schräubchen")):
        trees.write_image(tmp_path / written / "0.png")
    assert mixed(folder, labels="references", references=tmp_path).class_names == ["Schräubchen", "apple"]
    trees.write_image(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match=f"{name} cannot be the name of a class"):
        mixed(folder, labels="references", references=tmp_path)


def test_references_of_16_bits_are_refused(tmp_path: Path) -> None:
    """They would be white."""
    Image.new("I;16", (5, 5), 40000).save(tmp_path / "deep.png")
    encoder = PyramidEncoder("resnet18", {"layer1": [1.0]}, pre_trained=False)
    with pytest.raises(OSError, match=r"deep\.png cannot be read: its grey values have more than 8 bits"):
        describe(encoder, Compose([Identity()]), [str(tmp_path / "deep.png")])


def test_images_are_whole_patches_of_a_transformer() -> None:
    encoder = PyramidEncoder("vit_small_patch14_dinov2", {"blocks.0": [1.0]}, pre_trained=False)
    assert accepted_size(encoder) == (252, 252)
    assert accepted_size(PyramidEncoder("resnet18", {"layer1": [1.0]}, pre_trained=False)) == (256, 256)


def test_clusters_are_numbered_by_their_first_images() -> None:
    """However k-means numbers them."""
    clusters = np.array([2, 2, 0, 2, 1, 0])
    numbers = ranks_of_first(clusters)
    assert numbers[clusters].tolist() == [0, 0, 1, 0, 2, 1]
