# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Names of other letters than ASCII has work from the folder to the report, in one run.

That they do in exported files is tested in ``test_export``.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from pathlib import Path

import pytest
from anomalib.data import MVTecAD

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.evaluation.predictions import PREDICTED_FILE, read_predictions, read_table
from anomalib_hgad.report.command import report
from anomalib_hgad.report.run_files import CHECKPOINT
from tests.helpers import trees
from tests.helpers.commands import FAST_FLAGS, LIGHT_FLAGS, in_process
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT

pytestmark = pytest.mark.slow

NAMES = ["Schräubchen", "болт", "ボルト", "볼트"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Below a folder of such a name, with kinds of such names."""
    root = tmp_path_factory.mktemp("data") / "Teile 부품"
    for name in NAMES:
        trees.mvtec_class(root / name, kinds=("Riß",))
    return root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training and its test, in a folder of such a name."""
    training = engine(tmp_path_factory.mktemp("results") / "Ergebnisse 결과")
    datamodule = MultiClass(root=root, train_batch_size=8, eval_batch_size=8, num_workers=0, val_split_mode="synthetic")
    training.train(Hgad(**LIGHT, seed=0), datamodule=datamodule)
    return Path(training.trainer.default_root_dir)


def test_test_has_tables_and_pictures(root: Path, run: Path) -> None:
    rows = read_predictions(run)
    assert {row.class_name for row in rows} == set(NAMES)
    assert all((row.mask_path is not None) == row.gt_label for row in rows)
    pictures = {path.relative_to(run / "images").as_posix() for path in (run / "images").rglob("*.png")}
    assert pictures == {Path(row.image_path).relative_to(root).as_posix() for row in rows}


def test_report_has_the_names(run: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        page = report(run).read_text(encoding="utf-8")
    assert page.count("<svg") == page.count("</svg>") >= 4
    assert {name for name in NAMES if name in page} == set(NAMES)
    # Of two the font of the figures has no letters: they are text in every figure that has names of classes.
    texts = [set(re.findall(r"<text[^>]*>([^<]*)</text>", figure)) for figure in page.split("<svg")[1:]]
    assert sum({"ボルト", "볼트"} <= in_figure for in_figure in texts) >= 3


def test_command_line_predicts_a_folder(root: Path, run: Path, tmp_path: Path) -> None:
    folder = root / "볼트/test"
    arguments = ["--data", folder, "--ckpt_path", run / CHECKPOINT, f"--default_root_dir={tmp_path}", *FAST_FLAGS[1:]]
    in_process("predict", "--model", "Hgad", *LIGHT_FLAGS, *arguments)
    (table,) = tmp_path.rglob(PREDICTED_FILE)
    assert {Path(row.image_path) for row in read_table(table)} == set(folder.rglob("*.png"))
    pictures = {path.relative_to(table.parent / "images") for path in (table.parent / "images").rglob("*.png")}
    assert pictures == {path.relative_to(folder) for path in folder.rglob("*.png")}


def test_names_are_the_same_however_their_letters_are_written(tmp_path: Path) -> None:
    """macOS takes letters and their marks apart; categories are typed as one, and so are the names of a checkpoint."""
    apart = unicodedata.normalize("NFD", "Schräubchen")
    trees.mvtec_class(tmp_path / apart)
    for categories in (None, ["Schräubchen"], [apart]):
        datamodule = MultiClass(root=tmp_path, categories=categories, num_workers=0)
        datamodule.setup()
        assert datamodule.class_names == ["Schräubchen"]
    trees.mvtec_class(tmp_path / "Schräubchen")
    with pytest.raises(ValueError, match="Classes named twice: Schräubchen"):
        MultiClass(root=tmp_path)


def test_datamodules_of_anomalib_read_such_folders(root: Path) -> None:
    datamodule = MultiClass([MVTecAD(root, "болт"), MVTecAD(root, "볼트")])
    datamodule.setup()
    assert len(datamodule.train_data) == len(datamodule.test_data) == 8


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m"])
def test_control_characters_are_refused(tmp_path: Path, name: str) -> None:
    trees.mvtec_class(tmp_path / name / "bolt")
    with pytest.raises(ValueError, match="control characters"):
        MultiClass(root=tmp_path / name).setup()
