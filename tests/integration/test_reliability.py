# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Bad input has one of two outcomes: the right result, or an error that says what to do."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch, MVTecAD, PredictDataset
from lightning.pytorch import Trainer
from PIL import Image

from anomalib_hgad import Hgad, MultiClass, UniAd
from anomalib_hgad.common import files as whole_file
from anomalib_hgad.models.hgad.feature_cache import store as feature_store
from anomalib_hgad.models.hgad.feature_cache.store import FileFeatures, check_folder, is_intact, write_shard
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

pytestmark = pytest.mark.slow

SHAPES = ((3, 4, 4), (5, 2, 2))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two good classes in MVTec layout."""
    for name in ("bottle", "tile"):
        trees.mvtec_class(tmp_path / "plant" / name)
    return tmp_path / "plant"


def set_up(root: Path) -> MultiClass:
    datamodule = MultiClass(root=root, num_workers=0)
    datamodule.setup()
    return datamodule


# Images


def rgb_of_16_bits(path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(path), np.full((4, 6, 3), 100 * 257, dtype=np.uint16))


@pytest.mark.parametrize(
    ("name", "write", "shape", "colour"),
    [
        pytest.param(
            "a.png", lambda path: Image.new("RGB", (1, 1), (9, 99, 199)).save(path), (1, 1), (9, 99, 199), id="1 x 1"
        ),
        pytest.param(
            "a.png",
            lambda path: Image.new("RGB", (20000, 2), (9, 99, 199)).save(path),
            (2, 20000),
            (9, 99, 199),
            id="20 000 wide",
        ),
        pytest.param("a.png", lambda path: Image.new("L", (6, 4), 99).save(path), (4, 6), (99, 99, 99), id="grey"),
        pytest.param(
            "a.png",
            lambda path: Image.new("LA", (6, 4), (99, 0)).save(path),
            (4, 6),
            (99, 99, 99),
            id="grey, transparent",
        ),
        pytest.param(
            "a.png", lambda path: Image.new("RGBA", (6, 4), (9, 99, 199, 0)).save(path), (4, 6), (9, 99, 199), id="RGBA"
        ),
        pytest.param(
            "a.tiff",
            lambda path: Image.new("CMYK", (6, 4), (0, 0, 0, 0)).save(path),
            (4, 6),
            (255, 255, 255),
            id="CMYK",
        ),
        pytest.param("a.png", lambda path: Image.new("1", (6, 4), 1).save(path), (4, 6), (255, 255, 255), id="1 bit"),
        pytest.param("a.png", rgb_of_16_bits, (4, 6), (100, 100, 100), id="RGB of 16 bits"),
    ],
)
def test_images_of_every_kind_show_their_colours(
    root: Path, name: str, write: Callable[[Path], None], shape: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    write(root / "tile/train/good" / name)
    dataset = set_up(root).train_data
    row = next(row for row, path in enumerate(dataset.samples["image_path"]) if Path(path).name == name)
    image = dataset[row].image
    assert image.shape == (3, *shape)
    assert (image[:, 0, 0] * 255).round().int().tolist() == list(colour)


def test_image_rotated_by_exif_is_read_as_stored(root: Path) -> None:
    """In training and in prediction alike."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    pixels = np.zeros((16, 40, 3), dtype=np.uint8)
    pixels[:, :20] = 255
    path = root / "tile/train/good/turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    dataset = set_up(root).train_data
    row = dataset.samples.index[dataset.samples["image_path"] == str(path)][0]
    for image in (dataset[row].image, PredictDataset(path)[0].image):
        assert torch.equal((image * 255).round().byte(), torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("build", [lambda: Hgad(**LIGHT), lambda: UniAd(**LIGHT_UNIAD)], ids=["Hgad", "UniAd"])
def test_image_of_numbers_that_are_not_finite_is_named(build: Callable[[], Hgad | UniAd], value: float) -> None:
    images = torch.rand(3, 3, 32, 32)
    images[1, 2, 5, 5] = value
    paths = ["a.png", "b.png", "c.png"]
    with pytest.raises(ValueError, match=r"finite numbers, got NaN or infinity in b\.png\. Correct the dataset"):
        build().on_before_batch_transfer(ImageBatch(image=images, image_path=paths), 0)
    with pytest.raises(ValueError, match=r"got NaN or infinity in number 1 of the batch"):
        build().on_before_batch_transfer(ImageBatch(image=images), 0)


@pytest.mark.parametrize("build", [lambda: Hgad(**LIGHT), lambda: UniAd(**LIGHT_UNIAD)], ids=["Hgad", "UniAd"])
def test_nan_given_to_the_network_itself_comes_out(build: Callable[[], Hgad | UniAd]) -> None:
    """And no number that looks like a score. The other images of the batch have theirs."""
    images = torch.rand(2, 3, 32, 32)
    images[0, 0, 0, 0] = float("nan")
    scores = build().eval().model(images).pred_score
    assert scores.isnan().tolist() == [True, False]


# Masks


def masks_of_tile(datamodule: MultiClass) -> list[torch.Tensor]:
    samples = datamodule.test_data.samples
    rows = samples.index[(samples["class_name"] == "tile") & (samples["label_index"] == 1)]
    return [datamodule.test_data[row].gt_mask for row in rows]


def test_mask_that_marks_nothing_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its image stays anomalous."""
    Image.new("L", trees.SIZE).save(root / "tile/ground_truth/crack/001_mask.png")
    datamodule = set_up(root)
    assert "Class 'tile': the masks of 1 anomalous images mark no pixel: " in caplog.text
    assert "tile/test/crack/001.png. The pixel-level metrics treat these images as normal. Mark" in caplog.text
    assert [int(mask.sum()) for mask in masks_of_tile(datamodule)] == [64, 0]
    assert datamodule.test_data.samples["label_index"].sum() == 4


def test_good_masks_are_no_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    set_up(root)
    assert caplog.text == ""


def marked(kind: str) -> Image.Image:
    """The mask of the left half, written in another way."""
    half = np.zeros(trees.SIZE, dtype=np.uint8)
    half[:, :16] = 1
    if kind == "ones":
        return Image.fromarray(half)
    if kind == "shades":
        return Image.fromarray(half * np.arange(3, 35, dtype=np.uint8))
    if kind == "colours":
        return Image.fromarray(np.stack([half * 200, half * 0, half * 0], axis=2))
    if kind == "1 bit":
        return Image.fromarray(half.astype(bool))
    return Image.fromarray(half.astype(np.uint16) * 40000)


@pytest.mark.parametrize("kind", ["ones", "shades", "colours", "1 bit", "16 bits"])
def test_mask_that_is_not_black_and_white_marks_all_that_is_not_black(root: Path, kind: str) -> None:
    marked(kind).save(root / "tile/ground_truth/crack/001_mask.png")
    mask = masks_of_tile(set_up(root))[1]
    assert mask[:, :16].all()
    assert not mask[:, 16:].any()


def test_truncated_mask_is_named(root: Path) -> None:
    path = root / "tile/ground_truth/crack/001_mask.png"
    trees.write_image(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(OSError, match=r"001_mask\.png cannot be read: .*truncated.*Replace the file"):
        set_up(root)


# Trees


def test_one_normal_image_is_trained_on_and_calibrated_with(root: Path, tmp_path: Path) -> None:
    """It cannot be held out as well."""
    for path in sorted((root / "tile/train/good").iterdir())[1:]:
        path.unlink()
    model = fitted(root, tmp_path, train_batch_size=32)
    assert model.training_data.held_out.samples["class_name"].tolist() == ["bottle"]
    assert model.model.calibration.spread.isfinite().all()
    assert (model.model.calibration.spread > 0).all()


@pytest.mark.parametrize(
    "name", ["two words", "v1.2", "[a] 'b' \"c\"", "%20", "-x", pytest.param("x" * 200, id="long")]
)
def test_class_of_any_printable_name(root: Path, name: str) -> None:
    (root / "tile").rename(root / name)
    datamodule = set_up(root)
    assert sorted(datamodule.class_names) == sorted(["bottle", name])
    assert datamodule.train_data[7].class_name in {"bottle", name}


def test_file_of_other_letters_is_read(root: Path) -> None:
    (root / "tile/train/good/001.png").rename(root / "tile/train/good/Größe 产品.png")
    dataset = set_up(root).train_data
    assert [dataset[row].image.shape for row in range(len(dataset))] == [(3, 32, 32)] * 8


def test_file_of_a_long_name_is_read(root: Path) -> None:
    (root / "tile/train/good/001.png").rename(root / "tile/train/good" / f"{'x' * 240}.png")
    assert len(set_up(root).train_data) == 8


@pytest.mark.parametrize("name", ["a/b", "../up", "/etc", "..", "", None])
def test_class_that_no_folder_could_be_called(root: Path, name: str | None) -> None:
    """Its pictures would be anywhere."""
    folder = Folder(name, root=root / "tile", normal_dir="train/good")
    with pytest.raises(ValueError, match="name of a class is also the name of its folder"):
        MultiClass([folder, MVTecAD(root, "bottle")])


@pytest.mark.parametrize("name", ["mean", "pooled", "unknown"])
def test_class_called_as_a_row_of_the_results(root: Path, name: str) -> None:
    (root / "tile").rename(root / name)
    with pytest.raises(ValueError, match=rf"{name} cannot be the name of a class"):
        MultiClass(root=root)


@pytest.mark.parametrize("place", ["loop", "tile/loop", "tile/test/loop", "tile/train/good/loop"])
def test_links_in_circles_are_not_followed(root: Path, place: str) -> None:
    (root / place).symlink_to((root / place).parent)
    datamodule = set_up(root)
    assert datamodule.class_names == ["bottle", "tile"]
    assert (len(datamodule.train_data), len(datamodule.test_data)) == (8, 8)


@pytest.mark.parametrize("target", ["001x.png", "nowhere.png"], ids=["itself", "nowhere"])
def test_link_that_leads_to_no_file_is_named(root: Path, target: str) -> None:
    (root / "tile/train/good/001x.png").symlink_to(root / "tile/train/good" / target)
    with pytest.raises(ValueError, match=r"'tile' .*1 links are broken: .*001x\.png\. Correct or remove them"):
        set_up(root)


def test_class_that_links_to_another_is_refused(root: Path) -> None:
    (root / "slab").symlink_to(root / "tile")
    with pytest.raises(ValueError, match=r"4 training images are in several classes \(slab, tile\): .*keep only one"):
        set_up(root)


def unreadable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a folder be one that may not be listed, for root too."""
    scan = os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.parametrize(
    "place", ["tile", "tile/train/good", "tile/test", "tile/test/crack", "tile/ground_truth/crack"]
)
@pytest.mark.parametrize("form", ["folders", "dataset"])
def test_folder_without_permission_is_named(root: Path, monkeypatch: pytest.MonkeyPatch, place: str, form: str) -> None:
    """It would pass for an empty one, and its class for one without masks."""
    unreadable(root / place, monkeypatch)
    with pytest.raises(PermissionError, match=f"No permission to read the folder .*{place}. Grant it to this user"):
        (set_up(root) if form == "folders" else MultiClass(dataset="MVTecAD", root=root).setup())


def test_named_folder_without_permission_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"abnormal_dir": "test/crack", "mask_dir": "ground_truth/crack"}
    datamodule = MultiClass([Folder("tile", "train/good", root / "tile", **folders)])
    unreadable(root / "tile/ground_truth/crack", monkeypatch)
    with pytest.raises(PermissionError, match=r"No permission to read the folder .*ground_truth/crack"):
        datamodule.setup()


def test_file_without_permission_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Image.open

    def refuse(path: Any, *args: Any) -> Any:
        if str(path).endswith("tile/train/good/001.png"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *args)

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ValueError, match=r"'tile': 1 image files cannot be read: .*001\.png .*Permission denied"):
        set_up(root)


# Settings


def fitted(root: Path, folder: Path, **data: Any) -> Hgad:
    """A light model after an epoch."""
    model = Hgad(**LIGHT)
    engine(folder / "results").fit(model, datamodule=MultiClass(root=root, num_workers=0, **data))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes", [{"train_batch_size": 1, "eval_batch_size": 1}, {"train_batch_size": 5}], ids=["batch of 1", "last of 1"]
)
def test_batches_of_one_image(root: Path, tmp_path: Path, sizes: dict[str, int]) -> None:
    """Of eight training images two are held out."""
    model = fitted(root, tmp_path, **sizes)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert (model.model.calibration.spread > 0).all()


@pytest.mark.parametrize("size", [1, 4, 7])
def test_image_smaller_than_the_stride_has_a_score(size: int) -> None:
    """Its feature map is one position."""
    model = Hgad(**LIGHT | {"image_size": size, "levels": {"layer2": [1.0]}}).eval().model
    prediction = model(torch.rand(2, 3, size, size))
    assert prediction.pred_score.isfinite().all()
    assert prediction.anomaly_map.shape == (2, 1, size, size)


def test_more_classes_than_channels_train() -> None:
    model = Hgad(**LIGHT | {"levels": {"layer1": [1.0, 0.5]}, "num_classes": 100, "num_centers": 2}).model
    losses = model.losses(model.encoder(torch.rand(2, 3, 32, 32)), torch.tensor([3, 99]))
    assert all(loss.isfinite() for loss in losses)


# Checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model of one class."""
    folder = tmp_path_factory.mktemp("checkpoint")
    trees.mvtec_class(folder / "data/tile", train=2)
    model = fitted(folder / "data", folder)
    model.trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def load(path: Path) -> None:
    Hgad.load_from_checkpoint(path)


def load_by_engine(path: Path) -> None:
    data = MultiClass(root=path.parent / "data", num_workers=0)
    engine(path.parent).test(Hgad(**LIGHT), data, ckpt_path=path)


def load_by_lightning(path: Path) -> None:
    data = MultiClass(root=path.parent / "data", num_workers=0)
    Trainer(accelerator="cpu", logger=False, default_root_dir=path.parent).test(Hgad(**LIGHT), data, ckpt_path=path)


@pytest.mark.parametrize("content", ["truncated", "empty", "text"])
@pytest.mark.parametrize("way", [load, load_by_engine, load_by_lightning])
def test_checkpoint_that_is_not_whole_is_named(checkpoint: Path, content: str, way: Callable[[Path], None]) -> None:
    whole = checkpoint.read_bytes()
    path = checkpoint.with_name("broken.ckpt")
    path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[content])
    with pytest.raises(ValueError, match=r"broken\.ckpt \(\d+ bytes\) is not a checkpoint, or is truncated\. Copy it"):
        way(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": {"layer2": [1.0, 0.75]}}, r"levels=.*\('layer2', 0\.75\)\] in the model"),
        (
            {"flow_arguments": {**LIGHT["flow_arguments"], "clamp_alpha": 1.2}},
            r"'clamp_alpha': 1\.9.* 'clamp_alpha': 1\.2\} in the model",
        ),
        ({"image_size": 33}, r"image_size=\(32, 32\) in the checkpoint and \(33, 33\) in the model"),
    ],
    ids=["scales", "flow", "image_size"],
)
def test_checkpoint_of_other_settings_names_them(checkpoint: Path, settings: dict[str, Any], message: str) -> None:
    """All of them are of the same tensors."""
    data = MultiClass(root=checkpoint.parent / "data", num_workers=0)
    run = engine(checkpoint.parent, max_epochs=2)
    here = LIGHT | settings
    for way in (
        lambda: Hgad.load_from_checkpoint(checkpoint, **settings),
        lambda: run.test(Hgad(**here), data, ckpt_path=checkpoint),
        lambda: run.predict(Hgad(**here), datamodule=data, ckpt_path=checkpoint),
        lambda: run.fit(Hgad(**here), datamodule=data, ckpt_path=checkpoint),
    ):
        with pytest.raises(ValueError, match=rf"other settings that scores depend on: .*{message}\. Give the model"):
            way()


def test_damaged_checkpoint_names_a_tensor(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["state_dict"]["model.flows.0.feature_mean"]
    torch.save(content, tmp_path / "damaged.ckpt")
    with pytest.raises(ValueError, match=r"1 tensors are missing.* model\.flows\.0\.feature_mean .* It is damaged or"):
        Hgad.load_from_checkpoint(tmp_path / "damaged.ckpt")


def test_checkpoint_of_hgad_is_none_of_uniad(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"model='Hgad' in the checkpoint and 'UniAd' in the model"):
        UniAd.load_from_checkpoint(checkpoint, **LIGHT_UNIAD)


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("way", [load, load_by_engine, load_by_lightning])
def test_code_in_a_checkpoint_does_not_run(checkpoint: Path, tmp_path: Path, way: Callable[[Path], None]) -> None:
    content = torch.load(checkpoint, weights_only=True)
    path = checkpoint.with_name("code.ckpt")
    torch.save(content | {"more": Code(tmp_path / "ran")}, path)
    with pytest.raises(ValueError, match=r"code\.ckpt holds more than tensors and plain data"):
        way(path)
    assert not (tmp_path / "ran").exists()


def test_code_in_a_weights_file_does_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Code(tmp_path / "ran")}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code\.pth cannot be read as a .safetensors or .pth state dict"):
        Hgad(**LIGHT, backbone_weights=tmp_path / "code.pth")
    assert not (tmp_path / "ran").exists()


# Caches


def test_two_runs_may_write_a_cache_file_at_once(tmp_path: Path) -> None:
    """Each batch of one is between two of the other. Whoever ends last leaves the file."""
    features = [[torch.rand(2, *shape) for shape in SHAPES] for _ in range(3)]
    path = tmp_path / "key.npy"
    together = threading.Barrier(2, timeout=20)

    def batches() -> Iterator[list[torch.Tensor]]:
        for batch in features:
            together.wait()
            yield batch

    runs = [threading.Thread(target=write_shard, args=(path, 6, SHAPES, batches())) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert is_intact(path, 6, SHAPES)
    assert list(tmp_path.iterdir()) == [path]
    for index in range(6):
        for level, kept in enumerate(FileFeatures([path])[index]):
            assert torch.equal(kept, features[index // 2][level][index % 2].half().float())


def test_disk_that_becomes_full_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(whole_file.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot be written to .*No space left.*feature_cache=FOLDER") as info:
        write_shard(tmp_path / "key.npy", 2, SHAPES, [[torch.rand(2, *shape) for shape in SHAPES]])
    assert info.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_read_only_folder_of_the_cache_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(feature_store.tempfile, "TemporaryFile", read_only)
    with pytest.raises(
        OSError, match=r"needs the folder .*cannot be written to .*Read-only file system.*feature_cache=False"
    ):
        check_folder(tmp_path / "cache", 0)
