# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""CIFAR-10 with classes as anomalies: the splits, the images, the errors, and models that train and test on it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from anomalib.models import Padim
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Callback
from PIL import Image
from sklearn.metrics import roc_auc_score
from torchvision.datasets import CIFAR10, cifar

from anomalib_hgad import Cifar10, Hgad
from anomalib_hgad.data.batch import ClassImageBatch
from anomalib_hgad.data.cifar10 import CLASSES, MANY_VERSUS_MANY
from anomalib_hgad.data.hold_out import hold_out
from anomalib_hgad.evaluation.evaluator import ClassEvaluator
from tests.helpers import trees
from tests.helpers.engines import all_figures, engine
from tests.helpers.light import LIGHT

Tree = dict[str, tuple[np.ndarray, list[int]]]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return trees.cifar10(tmp_path, monkeypatch)


def ready(root: Path, **settings: Any) -> Cifar10:
    datamodule = Cifar10(root, **{"num_workers": 0, "train_batch_size": 8, "eval_batch_size": 8} | settings)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


SPLITS = {
    ("airplane", "automobile", "bird", "cat", "deer"): (0, 1, 2, 3, 4),
    ("dog", "frog", "horse", "ship", "truck"): (5, 6, 7, 8, 9),
    ("airplane", "bird", "deer", "frog", "ship"): (0, 2, 4, 6, 8),
    ("automobile", "cat", "dog", "horse", "truck"): (1, 3, 5, 7, 9),
    ("cat",): (3,),
}


def test_the_four_splits_of_uniad() -> None:
    assert list(SPLITS.values())[:4] == list(MANY_VERSUS_MANY)


@pytest.mark.parametrize(("names", "numbers"), SPLITS.items())
def test_splits(tmp_path: Path, tree: Tree, names: tuple[str, ...], numbers: tuple[int, ...]) -> None:
    datamodule = ready(tmp_path, normal_classes=numbers)
    assert datamodule.class_names == list(names)
    trained = [(item.class_name, int(item.class_index), bool(item.gt_label)) for item in datamodule.train_data]
    assert sorted(trained) == sorted([(name, index, False) for index, name in enumerate(names)] * 5)
    tested = [(item.class_name, int(item.class_index), bool(item.gt_label)) for item in datamodule.test_data]
    expected = [(name, names.index(name), False) if name in names else (name, -1, True) for name in CLASSES]
    assert sorted(tested) == sorted(expected * 2)


def test_images_are_the_stored_ones(tmp_path: Path, tree: Tree) -> None:
    datamodule = ready(tmp_path, normal_classes=["truck", 2])
    for subset, split in ((datamodule.train_data, "train"), (datamodule.test_data, "test")):
        images, targets = tree[split]
        for item in subset:
            number = int(Path(item.image_path).stem)
            assert Path(item.image_path) == tmp_path / f"Cifar10/{split}/{item.class_name}/{number:05}.png"
            assert CLASSES[targets[number]] == item.class_name
            assert item.image.dtype == torch.float32
            np.testing.assert_allclose(item.image.numpy(), images[number].transpose(2, 0, 1) / 255, atol=1e-7)
    wanted = [number for number, target in enumerate(tree["train"][1]) if target in {2, 9}]
    assert sorted(int(Path(path).stem) for path in datamodule.train_data.samples["image_path"]) == wanted


def test_classes_come_in_any_order_by_name_and_number(tmp_path: Path) -> None:
    assert Cifar10(tmp_path, ["truck", 3, "bird"]).class_names == ["bird", "cat", "truck"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ["cat", "cow"],
            "has no class 'cow'. Give a list of names or numbers of some of them: 0 airplane, .*, 9 truck",
        ),
        ([10, -1], "has no class 10, -1"),
        ("cat", "Expected a list of normal_classes, got 'cat'"),
        ([], "Expected 1 to 9 normal_classes, for the others to be anomalous; got 0"),
        (range(10), "Expected 1 to 9 normal_classes, for the others to be anomalous; got 10"),
        ([3, 4, "cat"], "Expected each of normal_classes once, got twice: cat"),
    ],
)
def test_wrong_classes(tmp_path: Path, classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cifar10(tmp_path, classes)


@pytest.mark.parametrize("mode", ["from_dir", "later"])
def test_wrong_validation(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ValueError, match=f"val_split_mode to be one of none, same_as_test, .*; got '{mode}'"):
        Cifar10(tmp_path, val_split_mode=mode)


@pytest.mark.parametrize(
    ("mode", "counts"),
    [("same_as_test", (25, 20, 20)), ("from_test", (25, 10, 10)), ("from_train", (12, 13, 20)), ("none", (25, 0, 20))],
)
def test_validation_images(tmp_path: Path, tree: Tree, mode: str, counts: tuple[int, int, int]) -> None:
    datamodule = ready(tmp_path, val_split_mode=mode, seed=0)
    loaders = (datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.test_dataloader())
    seen = [[path for batch in loader for path in batch.image_path] for loader in loaders]
    assert [len(set(paths)) for paths in seen] == [len(paths) for paths in seen]
    assert sorted(map(len, seen)) == sorted(counts)
    assert len(seen[2]) == counts[2]
    if mode != "same_as_test":
        assert len({path for paths in seen for path in paths}) == sum(counts)


def test_every_process_splits_alike(tmp_path: Path, tree: Tree) -> None:
    splits = []
    for random_state in (1, 2):
        torch.manual_seed(random_state)
        splits.append(ready(tmp_path, val_split_mode="from_test").test_data.samples["image_path"].to_list())
    assert splits[0] == splits[1]


def test_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise URLError("no internet")

    monkeypatch.setattr(cifar, "download_and_extract_archive", fail)
    message = (
        rf"not complete in {tmp_path}/cifar-10-batches-py \(missing: data_batch_1, .*, batches.meta\) and could not be "
        rf"downloaded from https://.*tar.gz: .*no internet.*archive cifar-10-python.tar.gz into {tmp_path} or its files"
    )
    with pytest.raises(RuntimeError, match=message):
        Cifar10(tmp_path).prepare_data()
    with pytest.raises(FileNotFoundError, match=r"Cifar10/train/airplane, but .* Call prepare_data\(\) first"):
        Cifar10(tmp_path).setup()


def test_download_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the archive's real address and digest; what it brings is used."""
    calls = []

    def bring(url: str, root: str, filename: str, md5: str) -> None:
        calls.append((url, Path(root), filename, md5))
        trees.cifar10(tmp_path / "data", monkeypatch)

    monkeypatch.setattr(cifar, "download_and_extract_archive", bring)
    assert len(ready(tmp_path / "data").test_data) == 20
    address = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    digest = "c58f30108f718f92721af3b95e74349a"
    assert calls == [(address, tmp_path / "data", "cifar-10-python.tar.gz", digest)]


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_broken_file(tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is named; nothing is written of it."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise URLError("no internet")

    monkeypatch.setattr(cifar, "download_and_extract_archive", fail)
    path = tmp_path / CIFAR10.base_folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match=rf"not complete in .* \(broken: {name}\)"):
        Cifar10(tmp_path).prepare_data()
    assert not (tmp_path / "Cifar10").exists()


def test_interrupted_writing_leaves_nothing(tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        Cifar10(tmp_path).prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == [CIFAR10.base_folder]


def test_images_are_written_once(tmp_path: Path, tree: Tree) -> None:
    """The files that they came from are not needed again."""
    paths = ready(tmp_path).test_data.samples["image_path"].to_list()
    for file in (tmp_path / CIFAR10.base_folder).iterdir():
        file.unlink()
    assert ready(tmp_path).test_data.samples["image_path"].to_list() == paths


def test_broken_image_is_named(tmp_path: Path, tree: Tree) -> None:
    datamodule = ready(tmp_path)
    path = Path(datamodule.train_data.samples["image_path"][7])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(OSError, match=f"Image {path} cannot be read"):
        datamodule.train_data[7]


def test_held_out_images_of_every_class(tmp_path: Path, tree: Tree) -> None:
    datamodule = ready(tmp_path, normal_classes=[0, 9])
    kept, taken = hold_out(datamodule.train_data, 0.4)
    assert taken.samples["class_name"].to_list() == ["airplane"] * 2 + ["truck"] * 2
    assert kept.samples["class_name"].to_list() == ["airplane"] * 3 + ["truck"] * 3
    assert len(datamodule.train_data) == 10


class Collect(Callback):
    """Keeps the batches of a test."""

    def __init__(self) -> None:
        self.batches: list[ClassImageBatch] = []

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        self.batches.append(batch)

    def all(self, field: str) -> np.ndarray:
        return torch.cat([getattr(batch, field) for batch in self.batches]).numpy()


def pictures(folder: Path) -> set[str]:
    return {path.relative_to(folder / "images").as_posix() for path in (folder / "images").rglob("*.png")}


@pytest.mark.slow
def test_hgad_on_five_classes(tmp_path: Path, tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    datamodule = ready(tmp_path, normal_classes=MANY_VERSUS_MANY[2])
    seen = Collect()
    run = engine(tmp_path / "results", seen)
    model = Hgad(**LIGHT, class_source="given")
    run.train(model, datamodule=datamodule)
    assert "features are computed again" not in caplog.text
    assert bool(model.model.calibration.location.isfinite().all())
    (returned,) = run.test(model, datamodule=datamodule)
    figures = all_figures(run)
    seen.batches = seen.batches[-3:]  # of this test; a training tests too
    folder = Path(run.trainer.default_root_dir)

    truth = seen.all("gt_label")
    assert truth.sum() == 10
    auroc = roc_auc_score(truth, seen.all("raw_score"))
    assert figures["image_AUROC_pooled"] == returned["image_AUROC"] == pytest.approx(auroc)
    raw = roc_auc_score(truth, seen.all("class_inferred_score"))
    assert figures["class_inferred_image_AUROC_pooled"] == pytest.approx(raw)
    given, inferred = seen.all("class_given_score"), seen.all("class_inferred_score")
    np.testing.assert_array_equal(given[truth], inferred[truth])
    assert (given[~truth] != inferred[~truth]).any()

    # A class has no anomalous images of its own, and an anomalous image no class to be found or given.
    right = seen.all("pred_class_index")[~truth] == seen.all("class_index")[~truth]
    assert figures["ClassAccuracy_pooled"] == pytest.approx(right.mean())
    assert not [name for name in figures if name.startswith("image_AUROC") and name[12:] in datamodule.class_names]
    assert "class_given_image_AUROC_pooled" not in figures
    assert list(json.loads((folder / "results.json").read_text())["classes"]) == datamodule.class_names

    with (folder / "predictions.csv").open() as file:
        predicted = list(csv.DictReader(file))
    assert len({row["image_path"] for row in predicted}) == 20
    np.testing.assert_allclose([float(row["raw_score"]) for row in predicted], given)
    for row in predicted:
        assert row["class_name"] == Path(row["image_path"]).parent.name
        assert (row["gt_label"] == "True") == (row["class_name"] not in datamodule.class_names)
    assert pictures(folder) == {f"test/{row['class_name']}/{Path(row['image_path']).name}" for row in predicted}


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("mode", ["same_as_test", "synthetic"])
@pytest.mark.parametrize("build", [lambda: Hgad(**LIGHT), lambda: padim(evaluator=ClassEvaluator())])
def test_models_on_one_class(tmp_path: Path, tree: Tree, build: Callable[[], AnomalibModule], mode: str) -> None:
    datamodule = ready(tmp_path, normal_classes=["cat"], val_split_mode=mode)
    seen = Collect()
    run = engine(tmp_path / "results", seen)
    run.fit(model := build(), datamodule=datamodule)
    figures = run.test(model, datamodule=datamodule)[0]
    truth = seen.all("gt_label")
    assert (len(truth), truth.sum()) == (20, 18)
    assert figures["image_AUROC"] == pytest.approx(roc_auc_score(truth, seen.all("raw_score")))
    assert len(pictures(Path(run.trainer.default_root_dir))) == 20


def padim(**settings: Any) -> Padim:
    return Padim("resnet18", ["layer1"], pre_trained=False, n_features=8, **settings)


@pytest.mark.slow
@pytest.mark.nightly
def test_model_of_anomalib_as_it_is(tmp_path: Path, tree: Tree) -> None:
    datamodule = ready(tmp_path)
    seen = Collect()
    run = engine(tmp_path / "results", seen)
    run.fit(model := padim(), datamodule=datamodule)
    figures = run.test(model, datamodule=datamodule)[0]
    auroc = roc_auc_score(seen.all("gt_label"), seen.all("pred_score"))
    assert figures["image_AUROC"] == pytest.approx(auroc)


@pytest.mark.slow
def test_validation_on_made_anomalies_has_no_classes(tmp_path: Path, tree: Tree) -> None:
    """anomalib's synthetic images carry none: their figure is over all of them, and of no class."""
    datamodule = ready(tmp_path, val_split_mode="synthetic", seed=0)
    run = engine(tmp_path / "results")
    run.fit(Hgad(**LIGHT, visualizer=False), datamodule=datamodule)
    figures = {name for name in run.trainer.callback_metrics if name.startswith("val_image_AUROC")}
    assert figures == {"val_image_AUROC_pooled"}


def test_training_images_of_no_class_are_refused(tmp_path: Path, tree: Tree) -> None:
    datamodule = ready(tmp_path, normal_classes=[0, 1])
    datamodule.train_data.samples["class_index"] = -1
    with pytest.raises(ValueError, match=r"Expected training images of the classes airplane, automobile, got .* -1"):
        engine(tmp_path / "results").fit(
            Hgad(**LIGHT, feature_cache=False, calibration_share=None), datamodule=datamodule
        )


@pytest.mark.slow
def test_classes_that_the_model_was_not_trained_on(tmp_path: Path, tree: Tree) -> None:
    """Anomalous classes may be unknown, normal ones may not."""
    run = engine(tmp_path / "results")
    run.fit(model := Hgad(**LIGHT, visualizer=False), datamodule=ready(tmp_path, normal_classes=[0, 1]))
    with pytest.raises(ValueError, match=r"not trained on these classes of the data: dog\. It knows airplane, auto"):
        run.test(model, datamodule=ready(tmp_path, normal_classes=[0, "dog"]))
