# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The command that lets a checkpoint name kinds of defects, on images that are drawn."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_hgad import Hgad, MultiClass, UniAd, cli
from anomalib_hgad.data.batch import ClassImageBatch
from anomalib_hgad.evaluation.predictions import read_predictions
from anomalib_hgad.models.hgad.defect_kinds import KNOWN_KEY
from anomalib_hgad.products.defects import known_images
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

pytestmark = pytest.mark.slow

DECOMPOSED = unicodedata.normalize("NFD", "Schräubchen")
COMPOSED = unicodedata.normalize("NFC", DECOMPOSED)
FITTED = {
    "flow": "linear",
    "flow_arguments": None,
    "covariance": "full",
    "score": "contrast",
    "score_share": 0.03,
    "levels": {"layer1": [1.0]},
    "seed": 0,
    "visualizer": False,
}
COLOURS = {"oil": (0, 0, 0), "rust": (255, 60, 0)}
KNOWN = 3
"""Known defects of each kind: the first ones of the test images."""


def colour(file: Path, box: tuple[slice, slice], value: tuple[int, int, int]) -> None:
    """Paint a box of an image."""
    pixels = np.array(Image.open(file))
    pixels[box] = value
    Image.fromarray(pixels).save(file)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products, with defects that only their colour tells apart, each time at another place."""
    root = tmp_path_factory.mktemp("defects") / "plant"
    for name in ("bolt", "nut"):
        trees.mvtec_class(root / name, train=12, good=6, bad=0)
        for kind, value in COLOURS.items():
            for number in range(8):
                file = trees.write_image(root / name / "test" / kind / f"{number}.png")
                start = 2 * number + 2
                colour(file, (slice(start, start + 10), slice(10, 20)), value)
                trees.write_mask(root / name / "ground_truth" / kind / f"{number}_mask.png")
    for file in (root / "nut").glob("t*/*/*.png"):  # for something to tell them apart
        Image.fromarray(255 - np.array(Image.open(file))).save(file)
    return root


@pytest.fixture(scope="module")
def known(data: Path) -> Path:
    """Known defects of the bolt: a part of its test images, with a normal one among them."""
    folder = data.parent / "known"
    for kind in COLOURS:
        (folder / "bolt" / kind).mkdir(parents=True)
        for number in range(KNOWN):
            shutil.copy(data / "bolt/test" / kind / f"{number}.png", folder / "bolt" / kind)
    (folder / "bolt/good").mkdir()
    shutil.copy(data / "bolt/test/good/000.png", folder / "bolt/good")
    return folder


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = engine(tmp_path_factory.mktemp("run"))
    run.train(Hgad(**LIGHT | FITTED), datamodule=MultiClass(root=data, train_batch_size=4, num_workers=0))
    return Path(run.best_model_path)


@pytest.fixture(scope="module")
def named(checkpoint: Path, known: Path) -> Path:
    """The checkpoint that the command makes."""
    name_defects(checkpoint, known)
    return checkpoint.with_name("model-with-defects.ckpt")


def name_defects(checkpoint: Path, folder: Path, *arguments: str) -> None:
    assert cli.main(["name-defects", f"--ckpt_path={checkpoint}", f"--data.root={folder}", *arguments]) == 0


def predictions(checkpoint: Path, data: Path, folder: Path) -> list[ClassImageBatch]:
    datamodule = MultiClass(root=data, eval_batch_size=5, num_workers=0)
    return engine(folder).predict(Hgad.load_from_checkpoint(checkpoint), datamodule=datamodule, ckpt_path=checkpoint)


def test_nothing_but_the_kinds_is_new_bit_for_bit(checkpoint: Path, named: Path, data: Path, tmp_path: Path) -> None:
    before, after = (predictions(path, data, tmp_path) for path in (checkpoint, named))
    kinds = []
    for one, other in zip(before, after, strict=True):
        for field in ("pred_score", "raw_score", "anomaly_map", "pred_label", "pred_mask", "novelty", "limit_mask"):
            assert torch.equal(getattr(one, field), getattr(other, field)), field
        assert one.pred_class_name == other.pred_class_name
        assert one.defect_kind is None
        kinds += other.defect_kind
    assert set(kinds) == {"", *COLOURS} | ({"other"} & set(kinds))
    states = [torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, named)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_table_of_a_test_names_the_kinds_of_alarms(named: Path, data: Path, tmp_path: Path) -> None:
    run = engine(tmp_path)
    run.test(Hgad.load_from_checkpoint(named), datamodule=MultiClass(root=data, num_workers=0), ckpt_path=named)
    rows = read_predictions(Path(run.trainer.default_root_dir))
    alarms = [row for row in rows if row.raises_alarm and row.scored_class_name == "bolt"]
    assert all(row.defect_kind for row in alarms)
    assert {row.defect_kind for row in rows if row not in alarms} == {None}
    new = [row for row in alarms if row.gt_label and int(Path(row.image_path).stem) >= KNOWN]
    assert len(new) >= 6
    right = [row for row in new if row.defect_kind == Path(row.image_path).parent.name]
    assert len(right) > 0.7 * len(new)


def test_known_defects_themselves_have_their_kind(named: Path, known: Path) -> None:
    """As one image and in a batch."""
    model = Hgad.load_from_checkpoint(named)
    of_bolt = model.known_defects["bolt"]
    assert of_bolt.kinds == ["oil"] * KNOWN + ["rust"] * KNOWN
    assert [of_bolt.kind_of(descriptor) for descriptor in of_bolt.descriptors] == of_bolt.kinds
    assert known_images(known).keys() == {"bolt"}


def test_command_says_what_it_found(
    checkpoint: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name_defects(checkpoint, known, f"--output={tmp_path / 'new.ckpt'}")
    printed = " ".join(capsys.readouterr().out.split())
    assert "bolt: 1 normal images in" in printed
    assert "are ignored" in printed
    assert "bolt: oil (3), rust (3). With each image left out," in printed
    assert (tmp_path / "new.ckpt").is_file()


def test_kinds_of_a_product_are_replaced_and_those_of_others_kept(named: Path, data: Path, tmp_path: Path) -> None:
    """In the layout of MVTec; the folder of the normal images is left out."""
    trees.mvtec_class(tmp_path / "known/nut", train=1, good=1, bad=0)
    shutil.copytree(data / "nut/test/rust", tmp_path / "known/nut/test/red")
    name_defects(named, tmp_path / "known", f"--output={tmp_path / 'both.ckpt'}")
    both = Hgad.load_from_checkpoint(tmp_path / "both.ckpt").known_defects
    assert {name: sorted(set(of_class.kinds)) for name, of_class in both.items()} == {
        "bolt": ["oil", "rust"],
        "nut": ["red"],
    }
    (tmp_path / "known/nut/test/red").rename(tmp_path / "known/nut/test/orange")
    name_defects(tmp_path / "both.ckpt", tmp_path / "known", f"--output={tmp_path / 'again.ckpt'}")
    again = Hgad.load_from_checkpoint(tmp_path / "again.ckpt").known_defects
    assert set(again["nut"].kinds) == {"orange"}
    assert torch.equal(again["bolt"].descriptors, both["bolt"].descriptors)


def test_kinds_come_and_go_with_their_product(named: Path, data: Path, tmp_path: Path) -> None:
    model = Hgad.load_from_checkpoint(named)
    trees.mvtec_class(tmp_path / "more/washer", train=6, good=0, bad=0)
    for file in (tmp_path / "more").rglob("*.png"):
        colour(file, (slice(None), slice(None, None, 2)), (250, 0, 250))
    more = ["add-product", f"--ckpt_path={named}", f"--data.root={tmp_path / 'more'}"]
    assert cli.main([*more, f"--output={tmp_path / 'more.ckpt'}"]) == 0
    added = Hgad.load_from_checkpoint(tmp_path / "more.ckpt").known_defects
    assert torch.equal(added["bolt"].descriptors, model.known_defects["bolt"].descriptors)
    fewer = ["remove-product", f"--ckpt_path={tmp_path / 'more.ckpt'}", f"--output={tmp_path / 'fewer.ckpt'}"]
    assert cli.main([*fewer, '--names=["bolt"]']) == 0
    assert torch.load(tmp_path / "fewer.ckpt", weights_only=True)[KNOWN_KEY] == {}


def test_a_new_training_forgets_them(named: Path, data: Path, tmp_path: Path) -> None:
    """One that goes on from the checkpoint, and is tested with it after."""
    model, run = Hgad(**LIGHT | FITTED), engine(tmp_path)
    datamodule = MultiClass(root=data, train_batch_size=4, num_workers=0)
    run.train(model, datamodule=datamodule, ckpt_path=named)
    assert model.known_defects == {}
    loaded = Hgad.load_from_checkpoint(named)
    engine(tmp_path).fit(loaded, datamodule=datamodule)
    assert loaded.known_defects == {}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["bolt/other/1.png"], "bolt: the name 'other' is reserved for defects of none of the known kinds"),
        (["gear/oil/1.png"], "The model does not know 'gear': expected known defects of bolt, nut"),
        (["bolt/oil/1.txt"], "Expected images of a kind of defect in"),
        (["bolt/1.png"], "Expected images of a kind of defect in"),
        (["bolt/test/good/1.png"], "Expected images of a kind of defect in"),
        (["1.png"], "found no product folder"),
    ],
    ids=str,
)
def test_folders_that_name_no_kinds_are_refused(
    files: list[str], message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in files:
        trees.write_image(tmp_path / "known" / Path(file).with_suffix(".png")).rename(tmp_path / "known" / file)
    with pytest.raises(SystemExit):
        cli.main(["name-defects", f"--ckpt_path={checkpoint}", f"--data.root={tmp_path / 'known'}"])
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("good", ["good", "Good", "GOOD"])
@pytest.mark.parametrize("place", ["bolt", "bolt/test"])
def test_folder_of_normal_images_is_no_kind(
    good: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in (good, "rust"):
        trees.write_image(tmp_path / place / kind / "1.png")
    assert known_images(tmp_path) == {"bolt": {"rust": [tmp_path / place / "rust/1.png"]}}
    assert "bolt: 1 normal images in" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["OK", "normal", "good_2"])
def test_folder_that_seems_to_hold_normal_images_is_refused(name: str, tmp_path: Path) -> None:
    """Unless there are masks of what is wrong, as in training."""
    for kind in (name, "rust"):
        trees.write_image(tmp_path / "bolt/test" / kind / "1.png")
    with pytest.raises(ValueError, match=f"{name}.* seems to hold normal images by its name.*Rename it to 'good'"):
        known_images(tmp_path)
    trees.write_mask(tmp_path / "bolt/ground_truth" / name / "1_mask.png")
    assert known_images(tmp_path)["bolt"].keys() == {name, "rust"}


def test_names_are_the_same_however_their_letters_are_written(tmp_path: Path) -> None:
    """A checkpoint knows the product in Unicode's composed form; macOS writes the other one."""
    trees.write_image(tmp_path / DECOMPOSED / DECOMPOSED / "1.png")
    assert {name: list(kinds) for name, kinds in known_images(tmp_path).items()} == {COMPOSED: [COMPOSED]}
    trees.write_image(tmp_path / DECOMPOSED / COMPOSED / "1.png")
    with pytest.raises(ValueError, match=r"Two kinds of defects in .* have one name"):
        known_images(tmp_path)
    trees.write_image(tmp_path / COMPOSED / "rust" / "1.png")
    with pytest.raises(ValueError, match="Classes named twice"):
        known_images(tmp_path)


def test_images_that_name_no_kinds_are_refused_in_python_too(checkpoint: Path) -> None:
    model = Hgad.load_from_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="Expected images of known defects of bolt, got none of 'oil'"):
        model.name_defects({"bolt": {"oil": []}})
    with pytest.raises(ValueError, match=r"Expected images of known defects of bolt, got none\."):
        model.name_defects({"bolt": {}})
    with pytest.raises(ValueError, match="has covariance='identity'"):
        Hgad(**LIGHT).name_defects({"bolt": {"oil": ["1.png"]}})
    with pytest.raises(ValueError, match="has prior='single_gaussian'"):
        Hgad(**LIGHT | {"prior": "single_gaussian"}).name_defects({"bolt": {"oil": ["1.png"]}})
    with pytest.raises(ValueError, match="expected known defects of no product, as it was not trained"):
        Hgad(**LIGHT | FITTED).name_defects({"bolt": {"oil": ["1.png"]}})
    assert model.known_defects == {}


def test_other_arguments_and_models_are_refused(
    checkpoint: Path, known: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = engine(tmp_path)
    run.fit(UniAd(**LIGHT_UNIAD), datamodule=MultiClass(root=data, train_batch_size=4, num_workers=0))
    for path, arguments, message in (
        (run.best_model_path, [], "Expected a checkpoint of anomalib_hgad.Hgad; this one is of another model."),
        (checkpoint, ["--data.categories=[bolt]"], "as data.root, and no other argument, got ['categories', 'root']"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["name-defects", f"--ckpt_path={path}", f"--data.root={known}", *arguments])
        assert message in " ".join(capsys.readouterr().err.split())
