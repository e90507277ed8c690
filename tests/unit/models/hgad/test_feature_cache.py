# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Features are computed once, and a training on them is the training on the images."""

from __future__ import annotations

import csv
import pickle
import tracemalloc
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.data.datasets.base import image as anomalib_image
from anomalib.engine import Engine
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.v2 import CenterCrop, ColorJitter, Compose, RandomHorizontalFlip, Resize

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.common.encoder import PyramidEncoder
from anomalib_hgad.data import dataset as dataset_module
from anomalib_hgad.data.dataset import MultiClassDataset
from anomalib_hgad.models.hgad import normal_pass
from anomalib_hgad.models.hgad.feature_cache import cache as feature_cache
from anomalib_hgad.models.hgad.feature_cache import store as feature_store
from anomalib_hgad.models.hgad.feature_cache.dataset import FeatureDataset
from anomalib_hgad.models.hgad.feature_cache.store import FileFeatures, MemoryFeatures, is_intact, write_shard
from anomalib_hgad.models.hgad.pixel_limits import PATCHES_OF_IMAGE
from tests.helpers import trees
from tests.helpers.commands import FAST_FLAGS, LIGHT_FLAGS, in_process
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT

SHAPES = ((3, 4, 4), (5, 2, 2))
TRAINING_IMAGES = 11


class Work(Callback):
    """Counts what is read and computed, and when."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.encoded = 0
        self.before_training = (0, 0)
        self.features: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.before_training = (len(self.read), self.encoded)
        self.features = getattr(trainer.datamodule.train_data, "features", None)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work()
    read_image, encode = dataset_module.read_image, PyramidEncoder.forward

    def counted_read(path: str, *args: Any, **kwargs: Any) -> Any:
        work.read.append(path)
        return read_image(path, *args, **kwargs)

    def counted_encode(self: PyramidEncoder, images: torch.Tensor) -> list[torch.Tensor]:
        work.encoded += len(images)
        return encode(self, images)

    for reader in (anomalib_image, dataset_module):
        monkeypatch.setattr(reader, "read_image", counted_read)
    monkeypatch.setattr(PyramidEncoder, "forward", counted_encode)
    monkeypatch.setattr(normal_pass, "LIMIT_IMAGES", 0)  # images with patches aside, which are kept in main memory
    return work


@pytest.fixture
def in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """No main memory is free."""
    monkeypatch.setattr(feature_cache, "available_memory", lambda: 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    trees.mvtec_class(tmp_path / "data/bolt", train=6)
    trees.mvtec_class(tmp_path / "data/nut", train=5, size=(48, 40))
    return tmp_path / "data"


def multi_class(root: Path, **settings: Any) -> MultiClass:
    return MultiClass(
        root=root, **{"train_batch_size": 4, "num_workers": 0, "val_split_mode": "same_as_test"} | settings
    )


def fit(
    folder: Path, model: Hgad, datamodule: Any, *callbacks: Callback, ckpt_path: Path | None = None, **settings: Any
) -> Engine:
    """Train without validation, which would encode images."""
    logs = {"logger": CSVLogger(folder), "log_every_n_steps": 1}
    run = engine(folder, *callbacks, **{"max_epochs": 2, "limit_val_batches": 0} | logs | settings)
    run.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
    return run


def light_model(cache: bool | Path = True, **settings: Any) -> Hgad:
    return Hgad(**LIGHT | {"seed": 0, "lr": 1e-3, "feature_cache": cache} | settings)


def losses(folder: Path) -> list[float]:
    with next(folder.rglob("metrics.csv")).open() as file:
        return [float(row["train_loss_step"]) for row in csv.DictReader(file) if row["train_loss_step"]]


def trained_weights(model: Hgad) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items() if not name.startswith("encoder")}


@pytest.mark.slow
@pytest.mark.parametrize("validation", [pytest.param(0, marks=pytest.mark.nightly), 1.0])
def test_training_on_kept_features_is_that_on_images(data: Path, tmp_path: Path, validation: float) -> None:
    runs = []
    for name, cache in (("kept", True), ("anew", False)):
        model = light_model(cache)
        fit(tmp_path / name, model, multi_class(data), max_epochs=3, limit_val_batches=validation)
        runs.append((losses(tmp_path / name), trained_weights(model)))
    (kept_losses, kept), (expected_losses, expected) = runs
    assert len(expected_losses) == 9
    # The loss is a difference of large terms: what counts is the rounding of these.
    assert kept_losses == pytest.approx(expected_losses, rel=0, abs=1e-4 * max(map(abs, expected_losses)))
    for name, tensor in expected.items():
        # As a whole: Adam makes full steps of gradients that are nothing but rounding.
        difference = (kept[name].double() - tensor.double()).norm()
        assert difference <= 1e-4 * tensor.double().norm() + 1e-5, name


@pytest.mark.slow
@pytest.mark.usefixtures("in_files")
def test_training_from_files_is_that_on_images_to_the_rounding(data: Path, tmp_path: Path) -> None:
    """With all positions in every step: one position of a tiny map alone makes much of the rounding."""
    fit(tmp_path / "kept", light_model(tmp_path / "cache", position_share=1.0), multi_class(data))
    fit(tmp_path / "anew", light_model(cache=False, position_share=1.0), multi_class(data))
    kept, expected = losses(tmp_path / "kept"), losses(tmp_path / "anew")
    assert kept == pytest.approx(expected, rel=0, abs=2e-3 * max(map(abs, expected)))
    assert kept != expected


@pytest.mark.slow
@pytest.mark.parametrize("files", [False, True])
def test_after_the_start_neither_images_nor_backbone_are_touched(
    data: Path, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch, files: bool
) -> None:
    class Delete(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            for path in data.glob("*/train/*/*"):
                path.unlink()

    images = sorted(map(str, data.glob("*/train/good/*")))
    assert len(images) == TRAINING_IMAGES
    if files:
        monkeypatch.setattr(feature_cache, "available_memory", lambda: 0)
    fit(tmp_path / "run", light_model(tmp_path / "cache"), multi_class(data), work, Delete(), max_epochs=3)
    assert sorted(work.read) == images
    assert work.encoded == TRAINING_IMAGES + 1  # an empty one tells the shapes
    assert work.before_training == (len(work.read), work.encoded)
    assert isinstance(work.features, FileFeatures if files else MemoryFeatures)
    assert (tmp_path / "cache").exists() == files


@pytest.mark.slow
def test_patches_are_pasted_before_the_training_too(data: Path, tmp_path: Path) -> None:
    """Limits of masks come from them to the end, though the images are gone; then their memory is given back."""
    kept = []

    class Delete(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            kept.append(pl_module.training_data.patched)
            for path in data.glob("*/train/*/*"):
                path.unlink()

    model = light_model()
    fit(tmp_path / "run", model, multi_class(data), Delete())
    (batches,) = kept
    assert sum(len(batch.masks) for batch in batches) == 2 * PATCHES_OF_IMAGE, "of one image held out of each class"
    assert all(batch.masks.flatten(1).any(dim=1).all() for batch in batches)
    assert model.training_data.patched is None
    scale = model.model.calibration
    assert (scale.pixel_spread > 0).all()
    assert (scale.pixel_spread != 1).all()


@pytest.mark.slow
@pytest.mark.usefixtures("in_files")
def test_files_serve_later_runs(data: Path, tmp_path: Path, work: Work) -> None:
    fit(tmp_path / "first", light_model(tmp_path / "cache"), multi_class(data))
    work.read.clear()
    work.encoded = 0
    # What the features do not depend on may be another.
    fit(tmp_path / "second", light_model(tmp_path / "cache", num_centers=3), multi_class(data, train_batch_size=2))
    assert (work.read, work.encoded) == ([], 1)
    fit(tmp_path / "third", light_model(tmp_path / "cache"), multi_class(data))
    assert losses(tmp_path / "first") == losses(tmp_path / "third")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def other_pixel(data: Path, folder: Path) -> dict[str, Any]:
    path = data / "nut/train/good/002.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[7, 7] ^= 1
    Image.fromarray(pixels).save(path)
    return {}


def other_weights(data: Path, folder: Path) -> dict[str, Any]:
    state = light_model().model.encoder.extractor.feature_extractor.state_dict()
    state["layer1.0.conv1.weight"] *= 1.001
    save_file(state, folder / "weights.safetensors")
    return {"backbone_weights": folder / "weights.safetensors"}


def other_normalisation(data: Path, folder: Path) -> dict[str, Any]:
    return {"pre_processor": Hgad.configure_pre_processor((32, 32), std=(0.2, 0.2, 0.2))}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        other_pixel,
        other_weights,
        other_normalisation,
        lambda *_: {"levels": {"layer1": [1.0, 0.5]}},
        lambda *_: {"calibration_share": 0.4},
        pytest.param(lambda *_: {"levels": {"layer2": [1.0, 0.25]}}, marks=pytest.mark.nightly),
        pytest.param(lambda *_: {"image_size": 40}, marks=pytest.mark.nightly),
        pytest.param(lambda *_: {"backbone": "resnet10t"}, marks=pytest.mark.nightly),
    ],
    ids=["pixel", "weights", "normalisation", "layer", "images", "scale", "size", "backbone"],
)
@pytest.mark.usefixtures("in_files")
def test_features_of_another_setting_are_not_used(data: Path, tmp_path: Path, work: Work, change: Any) -> None:
    fit(tmp_path / "first", light_model(tmp_path / "cache"), multi_class(data), max_epochs=1)
    settings = change(data, tmp_path)
    work.read.clear()
    fit(tmp_path / "second", light_model(tmp_path / "cache", **settings), multi_class(data), max_epochs=1)
    assert len(work.read) == TRAINING_IMAGES
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    ["truncated", *(pytest.param(how, marks=pytest.mark.nightly) for how in ("empty", "other shape", "no NumPy file"))],
)
@pytest.mark.usefixtures("in_files")
def test_broken_file_is_made_anew(
    data: Path, tmp_path: Path, work: Work, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path / "first", light_model(tmp_path / "cache"), multi_class(data), max_epochs=1)
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()
    if damage == "other shape":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes({"truncated": content[:-1], "empty": b"", "no NumPy file": b"x" * len(content)}[damage])
    work.read.clear()
    fit(tmp_path / "second", light_model(tmp_path / "cache"), multi_class(data), max_epochs=1)
    assert len(work.read) == TRAINING_IMAGES
    assert f"{path} is not an intact file" in caplog.text
    assert path.read_bytes() == content


@pytest.mark.usefixtures("in_files")
def test_full_disk_is_an_error_before_the_work(
    data: Path, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: usage)
    datamodule = multi_class(data)
    with pytest.raises(OSError, match=r"need 0.00 GB in .*cache, but only 0.00 GB are free.*feature_cache=False"):
        fit(tmp_path / "run", light_model(tmp_path / "cache"), datamodule)
    assert work.read == []
    assert isinstance(datamodule.train_data, MultiClassDataset)


@pytest.mark.usefixtures("in_files")
def test_folder_that_cannot_be_written_to_is_an_error_before_the_work(data: Path, tmp_path: Path, work: Work) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        OSError, match=r"needs the folder .*file/cache, which cannot be written to.*feature_cache=FOLDER"
    ):
        fit(tmp_path / "run", light_model(tmp_path / "file/cache"), multi_class(data))
    assert work.read == []


@pytest.mark.usefixtures("in_files")
def test_broken_off_work_leaves_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = PyramidEncoder.forward

    def broken(self: PyramidEncoder, images: torch.Tensor) -> list[torch.Tensor]:
        if len(list((tmp_path / "cache").glob("*.part"))) == 1 and len(images) == 3:  # the last batch
            raise RuntimeError("broken off")
        return encode(self, images)

    monkeypatch.setattr(PyramidEncoder, "forward", broken)
    datamodule = multi_class(data)
    with pytest.raises(RuntimeError, match="broken off"):
        fit(tmp_path / "run", light_model(tmp_path / "cache"), datamodule)
    assert list((tmp_path / "cache").iterdir()) == []
    assert isinstance(datamodule.train_data, MultiClassDataset)


def test_killed_write_leaves_no_file_that_is_taken_for_whole(tmp_path: Path) -> None:
    def batches() -> Iterator[list[torch.Tensor]]:
        yield [torch.rand(2, *shape) for shape in SHAPES]
        assert not (tmp_path / "key.npy").exists()
        assert len(list(tmp_path.glob("*.part"))) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "key.npy", 4, SHAPES, batches())
    assert list(tmp_path.iterdir()) == []


def test_features_beyond_half_precision_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"reach 7e\+04.*float16, with values up to 65504.*feature_cache=False"):
        write_shard(tmp_path / "key.npy", 1, SHAPES, [[torch.full((1, *shape), -7e4) for shape in SHAPES]])
    assert list(tmp_path.iterdir()) == []


def test_files_of_several_processes_hold_all_features(tmp_path: Path) -> None:
    levels = [torch.rand(7, *shape).half().float() for shape in SHAPES]
    paths = [tmp_path / f"{rank}.npy" for rank in range(3)]
    for rank, path in enumerate(paths):
        batches = [[level[rank::3][rows] for level in levels] for rows in (slice(0, 2), slice(2, None))]
        count = len(levels[0][rank::3])
        write_shard(path, count, SHAPES, [batch for batch in batches if len(batch[0])])
        assert is_intact(path, count, SHAPES)
        assert not is_intact(path, count + 1, SHAPES)
        assert not is_intact(path, count, SHAPES[::-1])
    features = FileFeatures(paths)
    for reader in (features, pickle.loads(pickle.dumps(features))):
        for index in range(7):
            for level, actual in zip(levels, reader[index], strict=True):
                assert torch.equal(actual, level[index])
    assert len(pickle.dumps(features)) < 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    "augmentations",
    [RandomHorizontalFlip(), Compose([Resize((32, 32)), Compose([ColorJitter(0.1)])])],
    ids=["alone", "composed"],
)
def test_augmentation_turns_it_off(
    data: Path, tmp_path: Path, work: Work, caplog: pytest.LogCaptureFixture, augmentations: Any
) -> None:
    fit(tmp_path / "run", light_model(), multi_class(data, train_augmentations=augmentations), work)
    assert "computed again in every epoch, as" in caplog.text
    assert "may change an image differently each time" in caplog.text
    assert work.encoded > 2 * TRAINING_IMAGES
    assert work.features is None


@pytest.mark.slow
def test_augmentation_of_one_class_turns_it_off(data: Path, tmp_path: Path, work: Work) -> None:
    parts = [
        multi_class(data, categories=["bolt"]),
        multi_class(data, categories=["nut"], train_augmentations=ColorJitter()),
    ]
    fit(tmp_path / "run", light_model(), MultiClass(parts, train_batch_size=4, num_workers=0), work)
    assert work.features is None


@pytest.mark.slow
def test_fixed_transforms_do_not(data: Path, tmp_path: Path, work: Work) -> None:
    augmentations = Compose([Resize((36, 36)), CenterCrop(34)])
    fit(tmp_path / "run", light_model(), multi_class(data, train_augmentations=augmentations), work)
    assert isinstance(work.features, MemoryFeatures)


@pytest.mark.slow
def test_images_of_many_sizes_turn_it_off(
    data: Path, tmp_path: Path, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path / "run", light_model(pre_processor=False), multi_class(data), work)
    assert "not all resized to one height and width" in caplog.text
    assert work.features is None


@pytest.mark.slow
def test_dataloaders_alone_turn_it_off(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datamodule = multi_class(data)
    datamodule.setup("fit")
    datamodule.train_data.parts[1].dataset.augmentations = Resize((32, 32))
    datamodule.train_data.parts[0].dataset.augmentations = Resize((32, 32))
    engine(tmp_path).fit(light_model(num_classes=2, lr=1e-3), train_dataloaders=_unnamed(datamodule))
    assert "do not all come from an anomalib datamodule" in caplog.text


def _unnamed(datamodule: MultiClass) -> Any:
    """Batches with class indices alone, as a model without a datamodule takes them."""

    def collate(items: Any) -> Any:
        batch = datamodule.train_data.collate_fn(items)
        batch.class_name = None
        return batch

    return torch.utils.data.DataLoader(datamodule.train_data, 4, collate_fn=collate)


@pytest.mark.slow
def test_resumed_training_has_the_features_of_its_own_backbone(data: Path, tmp_path: Path) -> None:
    class Compare(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            kept = trainer.datamodule.train_data[0].features
            image = dataset_module.read_image(str(data / "bolt/train/good/000.png"), as_tensor=True)
            expected = pl_module.model.encoder(pl_module.pre_processor.transform(image).unsqueeze(0))
            self.same = [
                torch.allclose(level, of_image[0], atol=1e-5) for level, of_image in zip(kept, expected, strict=True)
            ]

    first = fit(tmp_path / "first", light_model(calibration_share=None), multi_class(data))
    other, compare = light_model(seed=1, calibration_share=None), Compare()
    fit(tmp_path / "second", other, multi_class(data), compare, max_epochs=3, ckpt_path=first.best_model_path)
    assert compare.same == [True, True]


class See(Callback):
    """Keeps what a training reads from."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        datamodule = trainer.datamodule
        self.seen = (trainer.train_dataloader.num_workers, type(datamodule.train_data), datamodule.num_workers)


@pytest.mark.slow
@pytest.mark.subprocess
def test_datamodule_is_left_as_it_was(data: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    datamodule = multi_class(data, num_workers=2)
    for run in ("first", "second"):
        model, see = light_model(), See()
        fit(tmp_path / run, model, datamodule, see)
        assert see.seen == (0, FeatureDataset, 2)
        assert isinstance(datamodule.train_data, MultiClassDataset)
        assert isinstance(model.training_data.held_out, MultiClassDataset)
        assert "train_dataloader" not in vars(datamodule)
        assert datamodule.num_workers == 2
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
    assert not [warning for warning in recwarn if "many workers" in str(warning.message)]


@pytest.mark.slow
def test_features_are_given_back_after_the_training(data: Path, tmp_path: Path) -> None:
    engine = fit(tmp_path / "run", light_model(), multi_class(data))
    with pytest.raises(RuntimeError, match="a training that has ended"):
        engine.trainer.train_dataloader.dataset[0]


@pytest.mark.slow
def test_plain_datamodule_of_one_class(tmp_path: Path, work: Work) -> None:
    trees.folder_class(tmp_path / "data")
    datamodule = Folder("parts", "good", tmp_path / "data", "bad", train_batch_size=2, num_workers=0, seed=0)
    fit(tmp_path / "run", light_model(), datamodule, work, max_epochs=3)
    images = len(datamodule.train_data)
    assert (len(work.read), work.encoded) == (images, images + 1)
    assert isinstance(work.features, MemoryFeatures)


@pytest.mark.slow
def test_features_are_computed_in_the_precision_of_the_training(data: Path, tmp_path: Path) -> None:
    runs = []
    for name, cache in (("kept", True), ("anew", False)):
        fit(tmp_path / name, light_model(cache, whiten=False), multi_class(data), max_epochs=1, precision="bf16-mixed")
        runs.append(losses(tmp_path / name))
    assert runs[0] == pytest.approx(runs[1], rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("in_files")
@pytest.mark.parametrize("value", [pytest.param("false", marks=pytest.mark.nightly), "FOLDER"])
def test_command_line(data: Path, tmp_path: Path, work: Work, value: str) -> None:
    folder = tmp_path / "cache"
    value = value.replace("FOLDER", str(folder))
    in_process(
        *("fit", "--model=Hgad", *LIGHT_FLAGS, f"--model.feature_cache={value}"),
        *("--data=MultiClass", f"--data.root={data}", "--data.num_workers=0", "--trainer.limit_val_batches=0"),
        *(f"--default_root_dir={tmp_path / 'results'}", *FAST_FLAGS),
    )
    assert folder.exists() == (value != "false")
    checkpoint = torch.load(next((tmp_path / "results").rglob("*.ckpt")), weights_only=True)
    assert checkpoint["hyper_parameters"]["feature_cache"] == (value if value != "false" else False)
    Hgad.load_from_checkpoint(next((tmp_path / "results").rglob("*.ckpt")))


@pytest.mark.parametrize(("count", "side"), [(8, 16), (64, 32)])
def test_features_take_the_bytes_that_the_page_says(count: int, side: int, tmp_path: Path) -> None:
    """docs: 4 N Σ D H W in main memory, 2 N Σ D H W in files; who reads files holds one image at a time."""
    shapes = ((24, side, side), (48, side // 2, side // 2))
    numbers = count * (24 * side**2 + 48 * (side // 2) ** 2)
    memory = MemoryFeatures(count, shapes, torch.float32)
    assert sum(level.nbytes for level in memory.levels) == 4 * numbers
    path = tmp_path / "shard.npy"
    batches = ([torch.rand(8, *shape) for shape in shapes] for _ in range(count // 8))
    tracemalloc.start()
    write_shard(path, count, shapes, batches)
    _, written = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    features = FileFeatures([path])
    for index in range(count):
        features[index]
    _, read = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    header = path.stat().st_size - 2 * numbers
    assert 0 < header < 1024
    of_image = 4 * numbers / count
    assert written < 3 * 8 * of_image, "a batch of 8, and copies of it"
    assert read < 3 * of_image, "no more than an image, and a copy of it"
