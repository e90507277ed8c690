# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests that bad input gives an error that tells what to do, and that odd but good input gives none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anomalib.data import Folder, MVTecAD, Tabular
from anomalib.data.utils import Split
from PIL import Image

from anomalib_hgad.data.checks import check_class, clashing_pictures
from anomalib_hgad.data.folders import mask_files, pair_masks
from anomalib_hgad.data.multi_class import MultiClass
from tests.helpers import trees


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two good classes in MVTec layout."""
    for name in ("bottle", "tile"):
        trees.mvtec_class(tmp_path / name, train=4, good=2, bad=7)
    return tmp_path


def folder_form(root: Path) -> MultiClass:
    """The subfolders as classes."""
    return MultiClass(root=root)


def dataset_form(root: Path) -> MultiClass:
    """The categories of MVTec AD as classes."""
    return MultiClass(dataset="MVTecAD", root=root)


def datamodules_form(root: Path) -> MultiClass:
    """One datamodule for each class."""
    folders = {"normal_dir": "train/good", "abnormal_dir": "test/crack", "mask_dir": "ground_truth/crack"}
    return MultiClass([Folder("bottle", root=root / "bottle", **folders), MVTecAD(root, "tile")])


FORMS = pytest.mark.parametrize("form", [folder_form, dataset_form, datamodules_form])


@FORMS
def test_good_classes(root: Path, form: type[MultiClass]) -> None:
    """Nothing is wrong with these."""
    form(root).setup()


@FORMS
@pytest.mark.parametrize(("name", "content"), [("bottle", b""), ("tile", b"no image")])
@pytest.mark.parametrize("folder", ["train/good", "test/crack"])
def test_unreadable_images(root: Path, form: type[MultiClass], name: str, content: bytes, folder: str) -> None:
    """The files are named."""
    for number in (1, 3):
        (root / name / folder / f"00{number}.png").write_bytes(content)
    what = r"\(zero bytes\)" if not content else r"\(cannot identify image file"
    message = f"Class '{name}': 2 image files cannot be read: .*001.png {what}.*003.png.* Replace them"
    with pytest.raises(ValueError, match=message):
        form(root).setup()


@FORMS
def test_files_that_pillow_refuses_by_a_value_error(root: Path, form: type[MultiClass]) -> None:
    trees.write_refused_image(root / "tile/train/good/001.png")
    with pytest.raises(ValueError, match=r"Class 'tile': 1 image files cannot be read: .*001.png \(Truncated tRNS"):
        form(root).setup()


@FORMS
def test_grey_values_that_would_be_cut_off_are_refused(root: Path, form: type[MultiClass]) -> None:
    """Pillow would make nearly all of them white."""
    Image.fromarray(np.full((32, 32), 40000, dtype=np.uint16)).save(root / "tile/train/good/001.png")
    with pytest.raises(ValueError, match=r"Class 'tile': 1 image .*001.png \(its grey values have more than 8 bits"):
        form(root).setup()


@FORMS
def test_unreadable_mask(root: Path, form: type[MultiClass]) -> None:
    """Masks are images too."""
    (root / "tile/ground_truth/crack/002_mask.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Class 'tile': 1 image files cannot be read: .*002_mask.png \(zero bytes\)"):
        form(root).setup()


@FORMS
@pytest.mark.parametrize("name", ["bottle", "tile"])
def test_some_masks_missing(root: Path, form: type[MultiClass], name: str) -> None:
    """The first few images without mask are named, and the rest counted."""
    for number in range(6):
        (root / name / f"ground_truth/crack/00{number}_mask.png").unlink()
    message = (
        rf"(?s)Class '{name}'.* 6 .*anomalous images have no mask: .*000.png, .*004.png and 1 more. Add their masks"
    )
    with pytest.raises(ValueError, match=message):
        form(root).setup()


def test_no_masks_where_the_datamodule_needs_them(root: Path) -> None:
    """MVTecAD cannot do without masks, and the form that can is named."""
    shutil.rmtree(root / "tile/ground_truth")
    with pytest.raises(ValueError, match=r"'tile' cannot be set up by MVTecAD: 7 .* as root, without dataset"):
        dataset_form(root).setup()
    folder_form(root).setup()


@FORMS
def test_mask_of_another_size(root: Path, form: type[MultiClass]) -> None:
    """Both sizes are given."""
    trees.write_mask(root / "bottle/ground_truth/crack/001_mask.png", (20, 30))
    message = r"Class 'bottle': 1 masks do not have the size .*001_mask.png is \(20, 30\), .*001.png is \(32, 32\)"
    with pytest.raises(ValueError, match=message):
        form(root).setup()


@FORMS
def test_no_normal_training_image(root: Path, form: type[MultiClass]) -> None:
    """The class and its folder are named."""
    for file in (root / "bottle/train/good").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"Class 'bottle'.* normal training image.* Add some, or leave"):
        form(root).setup()


@FORMS
@pytest.mark.parametrize("above", ["products", ".cache"])
def test_hidden_images_are_not_used(tmp_path: Path, form: type[MultiClass], above: str) -> None:
    """They are those of editors and systems; what is above the class's folder does not matter."""
    root = tmp_path / above
    for name in ("bottle", "tile"):
        trees.mvtec_class(root / name)
        for hidden in ("train/good/._000.png", "test/good/.x.png"):
            trees.write_image(root / name / hidden)
        if form is not dataset_form:
            trees.write_image(root / "bottle/train/good/.ipynb_checkpoints/000.png")
    datamodule = form(root)
    datamodule.setup()
    for data in (datamodule.train_data, datamodule.test_data):
        paths = [Path(path).relative_to(root.resolve()) for path in data.samples["image_path"]]
        assert len(paths) >= 5
        assert not [path for path in paths if any(part.startswith(".") for part in path.parts)]


def test_anomalies_are_made_of_no_hidden_image(tmp_path: Path) -> None:
    """The hidden ones, which are cut short, are never read."""
    trees.mvtec_class(tmp_path / "tile", train=8, good=0, bad=0)
    for number in range(8):
        path = trees.write_image(tmp_path / "tile/train/good/.old" / f"{number}.png")
        path.write_bytes(path.read_bytes()[:1000])
    datamodule = MultiClass(root=tmp_path, val_split_mode="synthetic", test_split_mode="none", num_workers=0)
    datamodule.setup()
    assert len(datamodule.train_data) + len(datamodule.val_data) == 8


def test_hidden_images_that_a_dataset_wants_masks_of(root: Path) -> None:
    """They are named; the form that leaves them out is, too."""
    trees.write_image(root / "tile/test/.ipynb_checkpoints/000-checkpoint.png")
    with pytest.raises(ValueError, match=r"1 images are hidden: .*000-checkpoint\.png\. Remove them .* as root, witho"):
        dataset_form(root).setup()
    folder_form(root).setup()


@pytest.mark.parametrize("all_of_them", [True, False])
def test_images_that_a_dataset_does_not_read_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, all_of_them: bool
) -> None:
    """By the ending of their names; MVTec AD has .png alone. The form that reads them is named too."""
    trees.mvtec_class(tmp_path / "tile", suffix=".jpg" if all_of_them else ".png")
    more = trees.write_image(tmp_path / "tile/train/good/more.jpg")
    message = (
        r"\d+ images are ignored, because MVTecAD reads only \.png, \.PNG: .*\.jpg.*\. Convert them, or give .* as root"
    )
    if all_of_them:
        with pytest.raises(ValueError, match=rf"'tile' cannot be set up by MVTecAD: {message}"):
            dataset_form(tmp_path).setup()
    else:
        dataset_form(tmp_path).setup()
        assert re.search(rf"'tile': {message}", caplog.text)
    datamodule = folder_form(tmp_path)
    datamodule.setup()
    assert str(more) in set(datamodule.train_data.samples["image_path"])
    assert len(datamodule.train_data) == 5


@FORMS
def test_empty_class(root: Path, form: type[MultiClass]) -> None:
    """A class's folder may not be without images."""
    shutil.rmtree(root / "bottle")
    (root / "bottle/train/good").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"Class 'bottle' .*bottle has no images. Add some"):
        form(root).setup()


def test_class_folder_missing(root: Path) -> None:
    """A class that is asked for but not there."""
    with pytest.raises(ValueError, match=r"Expected categories of .* \(bottle, tile\), got carpet"):
        MultiClass(root=root, categories=["tile", "carpet"])
    datamodule = MultiClass(dataset="MVTecAD", root=root, categories=["tile", "carpet"])
    with pytest.raises(ValueError, match=r"Class 'carpet' .*carpet is missing. Correct root"):
        datamodule.setup()
    with pytest.raises(ValueError, match=r"Class 'bolt' .*: Path does not exist: .*nowhere.*Correct its folders"):
        MultiClass([Folder("bolt", root / "nowhere")]).setup()


def test_root_missing(tmp_path: Path) -> None:
    """A root folder that is not there, or has no classes."""
    with pytest.raises(FileNotFoundError, match=r"nowhere is missing. Correct root"):
        MultiClass(root=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has none. Correct root"):
        MultiClass(root=tmp_path)
    (tmp_path / "bolt").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Class 'bolt': expected normal training images in .*good"):
        MultiClass(root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"a category of BTech \(01, 02, 03\) in .*, found none. Correct root"):
        MultiClass(dataset="BTech", root=tmp_path)


def test_folder_names(tmp_path: Path) -> None:
    """Folder names that no class has, or that lack that of the normal images."""
    trees.folder_class(tmp_path / "bolt")
    with pytest.raises(FileNotFoundError, match=r"'bat' in the classes .* none has it. Correct abnormal_dir"):
        MultiClass(root=tmp_path, normal_dir="good", abnormal_dir="bat")
    with pytest.raises(ValueError, match=r"abnormal_dir='bad' without normal_dir"):
        MultiClass(root=tmp_path, abnormal_dir="bad")


@pytest.mark.parametrize("folder", ["Good", "GOOD"])
def test_good_in_any_case_is_good(root: Path, folder: str) -> None:
    """In the training as well."""
    for split in ("train", "test"):
        (root / "tile" / split / "good").rename(root / "tile" / split / folder)
    datamodule = folder_form(root)
    datamodule.setup()
    for data, normal in ((datamodule.train_data, 4), (datamodule.test_data, 2)):
        rows = data.samples[data.samples["class_name"] == "tile"]
        assert (rows["label_index"] == 0).sum() == normal
        paths = rows.loc[rows["label_index"] == 0, "image_path"]
        assert {Path(path).parent.name for path in paths} == {folder}


def test_folders_of_the_layout_in_any_case(root: Path) -> None:
    for place, name in (("train", "Train"), ("test", "TEST"), ("ground_truth", "Ground_Truth")):
        (root / "tile" / place).rename(root / "tile" / name)
    datamodule = folder_form(root)
    datamodule.setup()
    rows = datamodule.test_data.samples.query("class_name == 'tile'")
    assert sorted(rows["label_index"]) == [0] * 2 + [1] * 7
    assert rows["has_masks"].all()
    trees.write_image(root / "tile/test/dent/000.png")
    with pytest.raises(ValueError, match=r"'tile': expected one folder 'test', got .*tile/TEST, .*tile/test\. Merge"):
        folder_form(root)


@pytest.mark.parametrize("name", ["masks", "groundtruth", "Ground Truth", "gt"])
def test_folder_that_may_be_one_of_masks_is_named(root: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without it the class would have no masks."""
    (root / "tile/ground_truth").rename(root / "tile" / name)
    message = rf"'tile': .*tile/{name} seems to hold masks .* Rename it to 'ground_truth'"
    with pytest.raises(ValueError, match=message):
        folder_form(root)
    trees.write_mask(root / "tile/ground_truth/crack/000_mask.png")
    folder_form(root)
    assert f"tile/{name} are ignored" in caplog.text


def test_images_of_a_class_that_nothing_reads_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.write_image(root / "tile/validation/good/000.png")
    trees.write_image(root / "tile/007.png")
    (root / "tile/notes").mkdir()
    folder_form(root)
    (message,) = caplog.messages
    assert re.search(r"'tile': \S*tile/007\.png, \S*tile/validation are ignored: only images in train, test", message)


@pytest.mark.parametrize("name", ["OK", "normal", "Defect-free", "good_2", "goods", "no defect"])
@pytest.mark.parametrize("beside", [False, True])
def test_folder_that_may_be_one_of_normal_images_is_named(root: Path, name: str, beside: bool) -> None:
    """It would be one of anomalies."""
    trees.write_image(root / "tile/test" / name / "x.png")
    if not beside:
        shutil.rmtree(root / "tile/test/good")
    with pytest.raises(ValueError, match=rf"'tile': .*test/{name} seems to hold normal images .* Rename it to 'good'"):
        folder_form(root)


@pytest.mark.parametrize("name", ["Good", "OK"])
def test_folder_that_a_dataset_takes_for_one_of_anomalies_is_named(root: Path, name: str) -> None:
    (root / "tile/test/good").rename(root / "tile/test" / name)
    with pytest.raises(ValueError, match=rf"'tile' .*test/{name} seems to hold normal images .* Rename it to 'good'"):
        dataset_form(root).setup()


def test_folder_whose_images_have_masks_is_none_of_normal_ones(root: Path) -> None:
    (root / "tile/test/crack").rename(root / "tile/test/clean")
    (root / "tile/ground_truth/crack").rename(root / "tile/ground_truth/clean")
    datamodule = folder_form(root)
    datamodule.setup()
    assert datamodule.test_data.samples["label_index"].sum() == 14


def test_class_without_normal_test_images_says_what_it_takes_for_anomalous(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By their names nobody can tell."""
    (root / "tile/test/good").rename(root / "tile/test/batch 7")
    folder_form(root)
    (message,) = caplog.messages
    assert message.startswith("Class 'tile' has no normal images in test/good: all images in ")
    assert "tile/test/batch 7" in message


@pytest.mark.parametrize("place", ["test", "train", "ground_truth"])
def test_images_beside_the_folders_are_named(root: Path, place: str) -> None:
    """They are in none of them, and would be left out."""
    trees.write_image(root / "tile" / place / "007.png")
    with pytest.raises(
        ValueError, match=rf"'tile': 1 images are directly in .*tile/{place}: .*007\.png\. Move them to"
    ):
        folder_form(root)


def test_images_beside_the_folders_of_a_dataset_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where it cannot do with them, and where it leaves them out."""
    trees.write_image(root / "tile/test/007.png")
    message = r"1 images are outside the folders of their kinds: .*tile/test/007\.png\. Move them into one of these\."
    with pytest.raises(ValueError, match=rf"Class 'tile' cannot be set up by MVTecAD: {message}"):
        dataset_form(root).setup()
    trees.btech_class(root / "btech", "02")
    trees.write_image(root / "btech/02/test/007.png")
    MultiClass(dataset="BTech", root=root / "btech").setup()
    assert re.search(rf"Class '02': {message}".replace("tile", "02"), caplog.text)


def test_linked_images_that_a_dataset_leaves_out_are_named(
    root: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (root / "tile/train/good/004.png").symlink_to(trees.write_image(elsewhere / "1.png"))
    (root / "tile/train/good/005.png").symlink_to(root / "tile/train/good/000.png")
    (root / "tile/test/hole").symlink_to(trees.write_image(elsewhere / "hole/000.png").parent)
    dataset_form(root).setup()
    (message,) = caplog.messages
    assert re.search(r"'tile': links that .* ignored: \S*tile/test/hole, \S*tile/train/good/004\.png\. Repl", message)
    (root / "tile/test/hole").unlink()
    shutil.move(root / "tile/ground_truth/crack", elsewhere)
    (root / "tile/ground_truth/crack").symlink_to(elsewhere / "crack")
    with pytest.raises(ValueError, match=r"Class 'tile' cannot be set up by MVTecAD: links .*tile/ground_truth/crack,"):
        dataset_form(root).setup()


def test_images_in_deeper_folders_of_a_dataset_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where it cannot do with them, and where it leaves them out."""
    trees.write_image(root / "tile/train/good/good/004.png")
    message = r"1 images are in folders within those of the kinds: .*tile/train/good/good/004\.png\. Move them"
    dataset_form(root).setup()
    assert re.search(f"Class 'tile': {message}", caplog.text)
    trees.write_image(root / "tile/test/crack/cam/004.png")
    with pytest.raises(ValueError, match=r"'tile' cannot be set up by MVTecAD: 2 images are in folders within those"):
        dataset_form(root).setup()


@pytest.mark.parametrize("place", ["train/good", "test/good", "test/crack", "test/hole", "ground_truth/crack"])
@pytest.mark.parametrize("form", [folder_form, datamodules_form])
def test_linked_folders_within_folders_of_images_are_named(
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
    place: str,
    form: Callable[[Path], MultiClass],
) -> None:
    link = root / "bottle" / place / "more"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(trees.write_image(tmp_path_factory.mktemp("elsewhere") / "1.png").parent)
    form(root).setup()
    expected = [str(link)] if form == folder_form or place in {"train/good", "test/crack", "ground_truth/crack"} else []
    assert re.findall(r"Class 'bottle': images in the linked folders (\S*) are ignored", caplog.text) == expected


def test_training_images_beside_the_good_ones_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.write_image(root / "tile/train/more/007.png")
    folder_form(root)
    (message,) = caplog.messages
    assert "tile/train/more are ignored: only train/good is used" in message


def test_masks_named_unlike_their_images(root: Path) -> None:
    """Masks that belong to no image do not count."""
    for mask in (root / "tile/ground_truth/crack").iterdir():
        mask.rename(mask.with_name(f"x{mask.name}"))
    trees.write_mask(root / "tile/ground_truth/crack/000_mask.png")
    with pytest.raises(ValueError, match=r"'tile': 6 of 7 anomalous images have no mask"):
        folder_form(root).setup()


def test_pictures_that_would_overwrite_each_other(tmp_path: Path) -> None:
    """Classes without a folder in common, as on another disk, cannot have pictures of their own."""
    for name in ("one", "two"):
        trees.mvtec_class(tmp_path / name)
    datamodule = MultiClass([MVTecAD(tmp_path, "one"), MVTecAD(tmp_path, "two")])
    datamodule._name = None  # as with commonpath("/disk1", "/disk2"), which a test cannot make
    with pytest.raises(ValueError, match=r"pictures of 8 images would overwrite each other: .* and give its name to"):
        datamodule.setup()


def test_pictures_of_links_keep_the_paths_of_the_links(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of files of equal names in folders of equal names elsewhere."""
    for name in ("bottle", "tile"):
        good = root / name / "test/good"
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "good"
        good.rename(elsewhere)
        good.mkdir()
        for file in elsewhere.iterdir():
            (good / file.name).symlink_to(file)
    datamodule = folder_form(root)
    datamodule.setup()
    assert {Path(item.image_path).parents[2] for item in datamodule.test_data} == {root / "bottle", root / "tile"}


@pytest.mark.parametrize("form", [list, pd.DataFrame])
def test_rows_of_other_splits_are_named(
    root: Path, caplog: pytest.LogCaptureFixture, form: Callable[[list[dict[str, object]]], object]
) -> None:
    splits = ["train", Split.TRAIN, "val", "val", "test ", "test"]
    folders = ["train/good"] * 4 + ["test/crack"] * 2
    rows = [
        {"image_path": f"{folder}/00{number}.png", "label_index": int(folder != "train/good"), "split": split}
        for number, (folder, split) in enumerate(zip(folders, splits, strict=True))
    ]
    message = r"Class 'tile'.*: 3 rows of the table are ignored, .* in them: 'test ' \(1\), 'val' \(2\)\. Correct it"
    MultiClass([Tabular("tile", form(rows), root / "tile", val_split_mode="none")]).setup()
    assert re.search(message, caplog.text)


def test_pictures_of_relative_paths(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not told apart by the folder that is left out of the paths."""
    monkeypatch.chdir(root)

    def table(name: str) -> Tabular:
        kinds = {"train/good": (0, "train"), "test/good": (0, "test"), "test/crack": (1, "test")}
        rows = [(f"{name}/{kind}/00{number}.png", *of) for kind, of in kinds.items() for number in range(2)]
        return Tabular(name, pd.DataFrame(rows, columns=["image_path", "label_index", "split"]), val_split_mode="none")

    datamodule = MultiClass([table("bottle"), table("tile")])
    datamodule.setup()
    paths = [item.image_path for item in datamodule.test_data]
    assert paths == datamodule.test_data.samples["image_path"].to_list()
    assert all(Path(path).is_absolute() for path in paths)
    assert clashing_pictures(paths, datamodule.name) == []


def test_data_that_cannot_be_got(tmp_path: Path) -> None:
    """Preparing tells the class whose data is missing."""
    (tmp_path / "realiad").mkdir()
    with pytest.raises(RuntimeError, match=r"(?s)Class 'audiojack' was not found in .*realiad.* dataset not found"):
        MultiClass(dataset="RealIAD", root=tmp_path / "realiad", categories=["audiojack"]).prepare_data()


@pytest.mark.parametrize(
    ("image", "mask", "paired"),
    [
        ("000.png", "000.png", True),
        ("000.jpg", "000_mask.png", True),
        ("000.jpg", "000_gt-2.bmp", True),
        ("000.png", "mask_000.png", True),
        ("part_1.png", "part_1_mask.png", True),
        ("scratch/1.JPG", "scratch/1_mask.PNG", True),
        ("1.png", "10_mask.png", False),
        ("10.png", "1_mask.png", False),
        ("scratch/1.png", "dent/1_mask.png", False),
        ("000.png", "000.txt", False),
    ],
)
def test_masks_are_paired_by_name(tmp_path: Path, image: str, mask: str, paired: bool) -> None:
    """A mask is its image's by subfolder and name."""
    image_path = trees.write_image(tmp_path / "bad" / image)
    mask_path = tmp_path / "masks" / mask
    mask_path.parent.mkdir(parents=True)
    mask_path.touch()
    assert pair_masks(tmp_path / "bad", tmp_path / "masks") == {image_path: [mask_path] if paired else []}


def test_mask_goes_to_the_longest_name(tmp_path: Path) -> None:
    """``a_1_mask`` is the mask of ``a_1``, not of ``a``."""
    images = [trees.write_image(tmp_path / f"bad/{name}.png") for name in ("a", "a_1")]
    mask = trees.write_mask(tmp_path / "masks/a_1_mask.png")
    assert pair_masks(tmp_path / "bad", tmp_path / "masks") == {images[0]: [], images[1]: [mask]}


def test_ways_to_say_that_there_is_no_mask(tmp_path: Path) -> None:
    """anomalib's datasets say it in many ways."""
    mask = trees.write_mask(tmp_path / "mask.png")
    for value in (None, "", float("nan"), str(tmp_path / "missing.png"), [], str(tmp_path)):
        assert mask_files(value) == []
    assert mask_files(str(mask)) == mask_files([str(mask)]) == [mask]


def test_masks_that_a_dataset_names_are_missing(tmp_path: Path) -> None:
    """Depth data names a mask for each image, whether it is there or not."""
    trees.mvtec_3d_class(tmp_path, "bagel")
    for mask in tmp_path.glob("bagel/test/hole/gt/*"):
        mask.unlink()
    with pytest.raises(ValueError, match=r"Class 'bagel': 2 of 2 anomalous images have no mask"):
        MultiClass(dataset="MVTec3D", root=tmp_path).setup()


def test_class_without_training_samples() -> None:
    """There is nothing to learn from."""
    with pytest.raises(ValueError, match=r"Class 'bolt': expected a normal training image, found none"):
        check_class("bolt", None, [])


@pytest.mark.parametrize("file", ["train/good/stack.tif", "ground_truth/crack/000_mask.tif"])
def test_files_of_several_pages_are_named(file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a stack only the first image is trained on, and only the first mask counts."""
    trees.mvtec_class(tmp_path / "bolt")
    MultiClass(root=tmp_path, num_workers=0).setup()
    assert "pages" not in caplog.text
    pages = [Image.new("L", trees.SIZE, value) for value in (0, 255)]
    pages[0].save(tmp_path / "bolt" / file, save_all=True, append_images=pages[1:])
    MultiClass(root=tmp_path, num_workers=0).setup()
    assert "Class 'bolt': 1 image files have several pages, and only the first is read" in caplog.text
    assert file in caplog.text
