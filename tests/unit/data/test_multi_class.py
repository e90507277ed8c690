# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the three forms of MultiClass, and of what each class keeps of its own."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from anomalib.data import (
    AnomalibDataModule,
    BTech,
    Folder,
    Kolektor,
    MVTec3D,
    MVTecAD,
    MVTecAD2,
    RealIAD,
    UCSDped,
    Visa,
)
from jsonargparse import ArgumentParser
from torchvision.transforms.v2 import Resize

from anomalib_hgad.data.cifar10 import Cifar10
from anomalib_hgad.data.class_names import datamodule_class_names
from anomalib_hgad.data.hold_out import hold_out
from anomalib_hgad.data.multi_class import MultiClass
from tests.helpers import trees


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """Four classes: with masks, grey with masks, larger jpg without masks, and without anomalous images."""
    trees.mvtec_class(tmp_path / "plant/bolt", kinds=("crack", "dent"))
    trees.mvtec_class(tmp_path / "plant/cap", mode="L")
    trees.mvtec_class(tmp_path / "plant/nut", masks=False, size=(40, 24), suffix=".jpg")
    trees.mvtec_class(tmp_path / "plant/pin", train=10, good=0, bad=0)
    return tmp_path / "plant"


def counts(datamodule: AnomalibDataModule) -> dict[str, int]:
    """Count the images of each subset."""
    return {name: len(getattr(datamodule, f"{name}_data", ())) for name in ("train", "val", "test")}


def counts_of_class(datamodule: MultiClass, name: str) -> dict[str, int]:
    """Count the images of a class in each subset, by their paths."""
    subsets = {
        subset: getattr(datamodule, f"{subset}_data").samples["image_path"] for subset in ("train", "val", "test")
    }
    return {subset: sum(name in Path(path).parts for path in paths) for subset, paths in subsets.items()}


def test_subfolders_in_mvtec_layout(plant: Path) -> None:
    """All subfolders are classes, in sorted order, and each image has the class of its folder."""
    datamodule = MultiClass(root=plant, num_workers=0, val_split_mode="same_as_test", seed=0, train_batch_size=3)
    assert datamodule.class_names == ["bolt", "cap", "nut", "pin"]
    datamodule.setup()
    assert counts_of_class(datamodule, "bolt") == {"train": 4, "val": 6, "test": 6}
    assert counts_of_class(datamodule, "nut") == {"train": 4, "val": 4, "test": 4}
    assert counts_of_class(datamodule, "pin") == {"train": 8, "val": 2, "test": 2}
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.test_dataloader()):
        for batch in loader:
            folders = [Path(path).relative_to(plant.resolve()).parts[0] for path in batch.image_path]
            assert batch.class_name == folders
            assert batch.class_index.dtype == torch.int64
            assert batch.class_index.tolist() == [["bolt", "cap", "nut", "pin"].index(folder) for folder in folders]
            assert batch.image.shape[1] == 3


def test_subfolders_with_masks_and_without(plant: Path) -> None:
    """Classes without masks have none at all, those with masks have the right ones, and zeros for normal images."""
    datamodule = MultiClass(root=plant, num_workers=0, val_split_mode="none", seed=0)
    datamodule.setup()
    assert datamodule.task == "segmentation"
    for item in datamodule.test_data:
        path = Path(item.image_path)
        if item.class_name in {"nut", "pin"}:
            assert item.gt_mask is None
        else:
            assert item.gt_mask.sum() == (0 if path.parent.name == "good" else 64)
            assert item.gt_mask.shape == item.image.shape[-2:]
        assert item.gt_label == (path.parent.name != "good")
        assert item.image.shape[-2:] == ((24, 40) if item.class_name == "nut" else (32, 32))


def test_subfolders_with_named_folders(tmp_path: Path) -> None:
    """Folder-style names, with masks in one class only, and numbers that sort differently with a suffix."""
    trees.folder_class(tmp_path / "bolt", bad=12)
    trees.folder_class(tmp_path / "nut", masks=False, suffix=".jpg")
    trees.folder_class(tmp_path / "pin")
    datamodule = MultiClass(
        root=tmp_path,
        categories=["nut", "bolt"],
        normal_dir="good",
        abnormal_dir="bad",
        mask_dir="masks",
        val_split_mode="none",
        test_split_ratio=0.5,
        num_workers=0,
    )
    datamodule.setup()
    assert datamodule.class_names == ["bolt", "nut"]
    assert Counter(datamodule.train_data.samples["class_name"]) == {"bolt": 3, "nut": 3}
    assert Counter(datamodule.test_data.samples["class_name"]) == {"bolt": 15, "nut": 7}
    masks = {Path(item.image_path): item.mask_path for item in datamodule.test_data if item.gt_mask is not None}
    assert len(masks) == 15
    for image, mask in masks.items():
        expected = f"{image.stem}_mask.png" if image.parent.name == "bad" else None
        assert (mask and Path(mask).name) == expected


def test_several_folders_of_a_kind(tmp_path: Path) -> None:
    """Each with its masks; files of one name in two of them are two images."""
    bolt = trees.folder_class(tmp_path / "bolt", good=4, bad=3)
    for folder in ("bad", "masks"):
        (bolt / folder).rename(bolt / f"{folder} 1")
    other = trees.folder_class(tmp_path / "other", good=2, bad=2)
    for folder in ("bad", "masks", "good"):
        (other / folder).rename(bolt / f"{folder} 2")
    other.rmdir()
    folders = {"normal_dir": ["good", "good 2"], "abnormal_dir": ["bad 1", "bad 2"], "mask_dir": ["masks 1", "masks 2"]}
    datamodule = MultiClass(root=tmp_path, **folders, val_split_mode="none", test_split_ratio=0.5, num_workers=0)
    datamodule.setup()
    assert (len(datamodule.train_data), len(datamodule.test_data)) == (3, 3 + 5)
    masks = {item.image_path: item.mask_path for item in datamodule.test_data if item.gt_label}
    assert len(masks) == 5
    for image, mask in masks.items():
        image_folder, mask_folder = (Path(path).parent.name for path in (image, mask))
        assert mask_folder == image_folder.replace("bad", "masks")
        assert Path(mask).stem == f"{Path(image).stem}_mask"
    with pytest.raises(ValueError, match=r"Expected a mask_dir for each abnormal_dir, .*got mask_dir='masks 1' and"):
        MultiClass(root=tmp_path, **folders | {"mask_dir": "masks 1"})
    with pytest.raises(FileNotFoundError, match=r"Expected a folder 'bad 3' in the classes of"):
        MultiClass(root=tmp_path, **folders | {"abnormal_dir": ["bad 1", "bad 3"]})
    with pytest.raises(FileNotFoundError, match=r"'good 3' in the classes of .* none has it\. Correct normal_dir"):
        MultiClass(root=tmp_path, **folders | {"normal_dir": ["good", "good 3"]})


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"normal_dir": ["good", "good/extra"]}, "normal_dir names images twice: 'good/extra' is 'good', or in it"),
        ({"normal_dir": ["good/extra", "good"]}, "normal_dir names images twice: 'good/extra' is 'good', or in it"),
        ({"abnormal_dir": ["bad", "bad/"]}, "abnormal_dir names images twice: 'bad/' is 'bad', or in it"),
        ({"abnormal_dir": ["bad", "link"], "mask_dir": ["masks", "masks"]}, "abnormal_dir names .*: 'link' is 'bad'"),
        ({"normal_test_dir": ["bad", "bad"]}, r"normal_test_dir names .* Remove one of them\."),
    ],
)
def test_folders_of_a_kind_that_hold_the_same_images(
    tmp_path: Path, folders: dict[str, list[str]], message: str
) -> None:
    trees.folder_class(tmp_path / "bolt")
    trees.write_image(tmp_path / "bolt/good/extra/0.png")
    (tmp_path / "bolt/link").symlink_to("bad")
    with pytest.raises(ValueError, match=message):
        MultiClass(root=tmp_path, **{"normal_dir": "good"} | folders)


@pytest.mark.parametrize("val_split_mode", ["same_as_test", "from_test", "from_train", "synthetic"])
def test_datamodules_keep_their_own_splitting(tmp_path: Path, val_split_mode: str) -> None:
    """A class is split just as its datamodule alone splits it; classes come in the given order."""

    def datamodules() -> list[AnomalibDataModule]:
        arguments = {"root": tmp_path / "mvtec", "seed": 1, "num_workers": 0}
        return [
            MVTecAD(category="tile", val_split_mode=val_split_mode, val_split_ratio=0.25, **arguments),
            MVTecAD(category="bottle", **arguments),
        ]

    for category in ("tile", "bottle"):
        trees.mvtec_class(tmp_path / "mvtec" / category, train=8, good=4, bad=4)
    torch.manual_seed(0)
    datamodule = MultiClass(datamodules())
    assert datamodule.class_names == ["tile", "bottle"]
    datamodule.setup()
    for alone in datamodules():
        alone.setup()
        for subset in ("train_data", "val_data", "test_data"):
            samples = getattr(datamodule, subset).samples
            mine = samples[samples["class_name"] == alone.category]
            theirs = getattr(alone, subset).samples
            assert Counter(mine["label_index"]) == Counter(theirs["label_index"])
            if val_split_mode != "synthetic":  # which writes images of its own, drawn at random
                assert sorted(mine["image_path"]) == sorted(theirs["image_path"])


def test_datamodules_keep_their_own_augmentations(tmp_path: Path) -> None:
    """A class's augmentations are applied to its images and masks only."""
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / name)
    bolt = MultiClass(root=tmp_path, categories=["bolt"], augmentations=Resize((8, 16)))
    datamodule = MultiClass([bolt, MultiClass(root=tmp_path, categories=["nut"])])
    datamodule.setup()
    for data in (datamodule.train_data, datamodule.val_data, datamodule.test_data):
        for item in data:
            assert item.image.shape[-2:] == item.gt_mask.shape == ((8, 16) if item.class_name == "bolt" else (32, 32))


def test_setup_again_keeps_the_splits(plant: Path) -> None:
    """Random splits are drawn once, also when the user sets up before the trainer does."""
    datamodule = MultiClass(root=plant, num_workers=0)
    datamodule.setup()
    first = datamodule.test_data
    datamodule.setup("fit")
    datamodule.setup("test")
    assert datamodule.test_data is first


def test_no_validation_and_no_test_images(plant: Path) -> None:
    """Where no class has images for a stage, there are no batches."""
    datamodule = MultiClass(
        root=plant, categories=["pin"], val_split_mode="none", test_split_mode="none", num_workers=0
    )
    datamodule.setup()
    assert len(datamodule.train_data) == 10
    assert datamodule.val_dataloader() == []
    assert datamodule.test_dataloader() == []
    assert datamodule.predict_dataloader() == []
    assert datamodule.task == "classification"


def test_dataset_with_all_its_categories(tmp_path: Path) -> None:
    """All categories that are there are taken, whatever else is; the name of the dataset may be in any case."""
    for category in ("tile", "bottle"):
        trees.mvtec_class(tmp_path / "mvtec" / category)
    (tmp_path / "mvtec/notes").mkdir()
    datamodule = MultiClass(dataset="mvtecad", root=tmp_path / "mvtec", num_workers=0)
    assert datamodule.class_names == ["bottle", "tile"]
    datamodule.setup()
    assert counts(datamodule) == {"train": 8, "val": 8, "test": 8}
    assert isinstance(datamodule.sources[0].datamodule, MVTecAD)


def test_category_of_ones_own_in_the_layout_of_a_dataset(tmp_path: Path) -> None:
    """anomalib's own datamodule takes it too."""
    for name in ("bottle", "mine"):
        trees.mvtec_class(tmp_path / name)
    assert MultiClass(dataset="MVTecAD", root=tmp_path, categories=["mine", "bottle"]).class_names == ["bottle", "mine"]
    assert MultiClass(dataset="MVTecAD", root=tmp_path).class_names == ["bottle"]
    with pytest.raises(ValueError, match="got yours"):
        MultiClass(dataset="MVTecAD", root=tmp_path, categories=["yours"])


def test_folders_that_are_no_categories_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another case makes another name."""
    for name in ("bottle", "Cable", "my_part"):
        trees.mvtec_class(tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert MultiClass(dataset="MVTecAD", root=tmp_path).class_names == ["bottle"]
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'Cable'}, {tmp_path / 'my_part'} have training images, but are left out")
    MultiClass(dataset="MVTecAD", root=tmp_path, categories=["bottle"])
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("name", ["/data/products", "data/products", "products/", "..", ""])
def test_name_that_is_none_of_a_folder(plant: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"The name of MultiClass .* got '{re.escape(name)}'\. Rename it"):
        MultiClass(root=plant, name=name)


def test_dataset_not_downloaded_yet(tmp_path: Path) -> None:
    """All categories that anomalib knows are taken where there are none yet."""
    assert MultiClass(dataset="BTech", root=tmp_path / "new").class_names == ["01", "02", "03"]
    assert len(MultiClass(dataset="MVTecAD", root=tmp_path).class_names) == 15


@pytest.mark.parametrize(
    "dataset",
    [
        *("ADAM3D", "AutoVI", "BMAD", "BTech", "Kaputt", "MPDD", "MVTec3D", "MVTecAD", "MVTecAD2", "MVTecLOCO"),
        *("RealIAD", "VAD", "Visa"),
    ],
)
def test_dataset_can_be_any_with_categories(dataset: str, tmp_path: Path) -> None:
    """Every image and depth dataset of anomalib that has categories is known with all of them."""
    assert MultiClass(dataset=dataset, root=tmp_path).class_names


@pytest.mark.parametrize(
    ("dataset", "category", "write", "masks"),
    [
        ("MVTecLOCO", "juice_bottle", trees.mvtec_loco_class, True),
        ("AutoVI", "tank_screw", trees.autovi_class, True),
        ("BMAD", "Chest", trees.bmad_class, False),
    ],
)
def test_datasets_with_layouts_of_their_own(
    tmp_path: Path, dataset: str, category: str, write: Callable[[Path, str], None], masks: bool
) -> None:
    """Several masks for an image, masks in a folder for each image, and no masks where the dataset says there are."""
    write(tmp_path, category)
    datamodule = MultiClass(dataset=dataset, root=tmp_path, num_workers=0)
    datamodule.setup()
    assert datamodule.class_names == [category]
    assert [int(item.gt_label) for item in datamodule.train_data] == [0, 0]
    assert sorted(int(item.gt_label) for item in datamodule.test_data) == [0, 0, 1, 1]
    for item in datamodule.test_data:
        assert (item.gt_mask is not None) == masks
        assert item.gt_mask is None or item.gt_mask.sum() == 64 * item.gt_label


@pytest.mark.parametrize("datamodule", [MVTecAD2, RealIAD])
def test_normal_test_images_are_kept_where_anomalib_leaves_them_out(
    tmp_path: Path, datamodule: type[AnomalibDataModule]
) -> None:
    category, write = ("can", trees.mvtec_ad_2_class) if datamodule is MVTecAD2 else ("toy", trees.real_iad_class)
    write(tmp_path, category)
    merged = MultiClass(datamodules=[datamodule(root=tmp_path, category=category)], num_workers=0)
    merged.setup()
    assert sorted(int(item.gt_label) for item in merged.test_data) == [0, 0, 1, 1]


def test_union_of_four_datasets(tmp_path: Path) -> None:
    """MVTec AD, VisA, BTAD and MVTec 3D in one, the last without its depth."""
    trees.mvtec_class(tmp_path / "mvtec/tile")
    trees.visa_class(tmp_path / "visa", "candle")
    trees.btech_class(tmp_path / "btech", "02")
    trees.mvtec_3d_class(tmp_path / "mvtec3d", "bagel")
    roots = {"MVTecAD": "mvtec", "Visa": "visa", "BTech": "btech", "MVTec3D": "mvtec3d"}
    datamodule = MultiClass([MultiClass(dataset=name, root=tmp_path / root) for name, root in roots.items()])
    datamodule.num_workers = 0
    assert datamodule.class_names == ["tile", "candle", "02", "bagel"]
    datamodule.setup()
    classes = [MVTecAD, Visa, BTech, MVTec3D]
    assert [type(source.datamodule) for source in datamodule.sources] == classes
    assert counts(datamodule) == {"train": 16, "val": 16, "test": 16}
    for loader in (datamodule.train_dataloader(), datamodule.test_dataloader()):
        assert Counter(name for batch in loader for name in batch.class_name) == dict.fromkeys(
            datamodule.class_names, 4
        )
    for item in datamodule.test_data:
        assert item.gt_mask.sum() == (64 if item.gt_label else 0)


def test_union_names_the_dataset_of_a_class_that_two_have(tmp_path: Path) -> None:
    """Only the clashing names get their dataset's name."""
    trees.mvtec_class(tmp_path / "one/bolt")
    trees.mvtec_class(tmp_path / "one/nut")
    trees.mvtec_class(tmp_path / "two/bolt")
    datamodule = MultiClass([MultiClass(root=tmp_path / "one"), MultiClass(root=tmp_path / "two")])
    assert datamodule.class_names == ["one_bolt", "nut", "two_bolt"]


@pytest.mark.slow
def test_shared_classes(shared_data: Path) -> None:
    """Real classes: with masks and without, jpg and png, grey and RGB."""
    datamodule = MultiClass(root=shared_data / "data", num_workers=0, val_split_mode="same_as_test")
    datamodule.setup()
    assert counts_of_class(datamodule, "aws_alien") == {"train": 40, "val": 78, "test": 78}
    assert counts_of_class(datamodule, "aitex_03") == {"train": 100, "val": 114, "test": 114}
    batches = list(datamodule.test_dataloader())
    assert sum(len(batch.image) for batch in batches) == 46 + 78 + 10 + 10 + 114
    for batch in batches:
        assert (batch.gt_mask is None) == (set(batch.class_name) == {"aws_alien"})
        assert batch.gt_mask is not None or "aws_alien" in batch.class_name


def test_config_with_datamodules(tmp_path: Path) -> None:
    """A YAML file names the datamodules by their class paths, short forms among them."""
    trees.mvtec_class(tmp_path / "mvtec/tile")
    trees.visa_class(tmp_path / "visa", "candle")
    folder = {"name": "bolt", "root": str(trees.folder_class(tmp_path / "bolt")), "normal_dir": "good"}
    members = [
        {"class_path": "anomalib.data.MVTecAD", "init_args": {"root": str(tmp_path / "mvtec"), "category": "tile"}},
        {"class_path": "anomalib.data.Folder", "init_args": folder | {"abnormal_dir": "bad", "mask_dir": "masks"}},
        {
            "class_path": "anomalib_hgad.data.multi_class.MultiClass",
            "init_args": {"dataset": "Visa", "root": str(tmp_path / "visa")},
        },
    ]
    config = {"class_path": "anomalib_hgad.data.multi_class.MultiClass", "init_args": {"datamodules": members}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(config))
    datamodule = AnomalibDataModule.from_config(tmp_path / "data.yaml", **{"data.num_workers": 0})
    assert isinstance(datamodule, MultiClass)
    assert datamodule.class_names == ["tile", "bolt", "candle"]
    assert isinstance(datamodule.sources[1].datamodule, Folder)
    assert datamodule.num_workers == 0


def test_command_line_with_dataset(tmp_path: Path) -> None:
    """The short form is given as the command line gives it, and is printed as a config that can be read back."""
    for category in ("cable", "bottle", "tile"):
        trees.mvtec_class(tmp_path / category)
    parser = ArgumentParser()
    parser.add_subclass_arguments(AnomalibDataModule, "data")
    arguments = ["--data.dataset", "MVTecAD", "--data.root", str(tmp_path), "--data.categories", "[tile,cable]"]
    config = parser.parse_args(["--data", "MultiClass", *arguments, "--data.val_split_mode", "from_test"])
    assert parser.instantiate_classes(config).data.class_names == ["cable", "tile"]
    again = parser.parse_object(yaml.safe_load(parser.dump(config)))
    assert parser.instantiate_classes(again).data.sources[0].datamodule.val_split_mode == "from_test"


def test_command_line_with_several_folders(tmp_path: Path) -> None:
    """A list is a list, and one name is a name."""
    trees.folder_class(tmp_path / "bolt")
    (tmp_path / "bolt/worse").mkdir()
    parser = ArgumentParser()
    parser.add_subclass_arguments(AnomalibDataModule, "data")
    arguments = ["--data.root", str(tmp_path), "--data.normal_dir", "good", "--data.abnormal_dir", "[bad,worse]"]
    config = parser.parse_args(["--data", "MultiClass", *arguments])
    again = parser.parse_object(yaml.safe_load(parser.dump(config)))
    for parsed in (config, again):
        assert parsed.data.init_args.normal_dir == "good"
        assert parsed.data.init_args.abnormal_dir == ["bad", "worse"]
    assert len(parser.instantiate_classes(again).data.sources) == 1


def test_name_is_that_of_the_common_folder(tmp_path: Path) -> None:
    """anomalib saves a picture below the part of its image's path that comes after the datamodule's name."""
    folders = [Folder(f"part{number}", "good", tmp_path / f"plant/line/{number}") for number in range(2)]
    assert MultiClass(folders).name == "line"
    outside = Folder("outside", tmp_path / "store/good", abnormal_dir=[tmp_path / "store/bad"])
    assert MultiClass([*folders, outside]).name == tmp_path.name
    assert MultiClass([*folders, Folder("far", Path("/far/away"))]).name == "MultiClass"
    assert MultiClass(folders).category == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Expected one of: datamodules; dataset"),
        ({"datamodules": []}, "Expected one of: datamodules; dataset"),
        ({"datamodules": [MVTecAD()], "root": "."}, "Give exactly one of them"),
        ({"datamodules": [MVTecAD()], "dataset": "Visa"}, "Give exactly one of them"),
        ({"datamodules": [MVTecAD()], "seed": 1}, "seed cannot be given together with datamodules. Set it in the"),
        ({"datamodules": [MVTecAD()], "categories": ["tile"]}, "categories cannot be given together with datamodules"),
        ({"datamodules": [MVTecAD(), MVTecAD()]}, "Classes named twice: MVTecAD_bottle. Remove one"),
        ({"datamodules": [Kolektor(), Kolektor()]}, "Classes named twice: Kolektor_Kolektor. Remove one"),
        ({"dataset": "Visa", "normal_dir": "good"}, "normal_dir cannot be given together with dataset"),
        ({"dataset": "Imagenet"}, "Expected dataset to be one of ADAM3D, .*; got 'Imagenet'"),
        ({"dataset": "UCSDped"}, "Expected dataset to be one of ADAM3D"),
        ({"dataset": "Folder"}, "Expected dataset to be one of ADAM3D"),
        ({"dataset": "BTech", "categories": ["01", "4"]}, r"Expected categories of BTech \(01, 02, 03\), got 4"),
        ({"dataset": "BTech", "categories": []}, "got none"),
        ({"dataset": "BTech", "categories": ["01", "01"]}, "Classes named twice: 01"),
        ({"dataset": "MVTecAD2", "val_split_mode": "none"}, "MVTecAD2 .* does not accept val_split_mode. Leave it out"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, object], message: str) -> None:
    """The error says what to give instead."""
    with pytest.raises(ValueError, match=message):
        MultiClass(**arguments)


@pytest.mark.parametrize("labels", ["cluster", "references"])
def test_datamodule_that_finds_its_classes_itself_is_none_of_several(labels: str, tmp_path: Path) -> None:
    """Its classes would be those of its folders."""
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / name)
    references = {"references": tmp_path} if labels == "references" else {}
    inner = MultiClass(root=tmp_path, labels=labels, **references)
    with pytest.raises(ValueError, match=f"MultiClass with labels='{labels}' finds its classes itself, .* outer"):
        MultiClass([inner])
    with pytest.raises(ValueError, match="Cifar10 finds its classes itself"):
        MultiClass([Cifar10()])


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_of_datamodules_are_the_same_however_their_letters_are_written(form: str) -> None:
    """A checkpoint knows its classes by name."""
    name = "Schräubchen"
    folder = Folder(unicodedata.normalize(form, name), "good")
    assert MultiClass([folder]).class_names == datamodule_class_names(folder) == [unicodedata.normalize("NFC", name)]


def test_datamodule_of_videos() -> None:
    """Videos are refused."""
    with pytest.raises(TypeError, match="Expected anomalib datamodules for images in datamodules, got UCSDped"):
        MultiClass([UCSDped()])


def test_held_out_images_are_a_share_of_every_class(tmp_path: Path) -> None:
    for name, train in (("bolt", 20), ("nut", 5), ("gear", 1)):
        trees.mvtec_class(tmp_path / "plant" / name, train=train)
    datamodule = MultiClass(root=tmp_path / "plant", num_workers=0)
    datamodule.setup()
    everything = set(datamodule.train_data.samples["image_path"])
    left, held_out = hold_out(datamodule.train_data, 0.1)
    names = [f"{Path(path).parts[-4]}/{Path(path).stem}" for path in held_out.samples["image_path"]]
    assert names == ["bolt/005", "bolt/015", "nut/002"]  # 10 % of 20, one of 5, none of a class with one image
    kept = set(left.samples["image_path"])
    assert kept | set(held_out.samples["image_path"]) == everything
    assert not kept & set(held_out.samples["image_path"])
    assert all(item.image_path in kept for item in left)

    assert len(hold_out(datamodule.train_data, 0.5)[1]) == 12
    assert hold_out(datamodule.train_data, 0.0) == (datamodule.train_data, None)
    assert set(datamodule.train_data.samples["image_path"]) == everything
