# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Files that are no checkpoints are refused by name."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from anomalib_hgad import Hgad
from anomalib_hgad.models.checkpoint_io import explain_checkpoint_errors


def test_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"layer1.weight": torch.zeros(1)}, path)
    with pytest.raises(
        ValueError, match=r"weights\.pth is not a checkpoint: a training did not write it\. It may hold"
    ):
        Hgad.load_from_checkpoint(path)


def test_archive_of_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    """As a workbook or an exported program."""
    path = tmp_path / "book.xlsx"
    with ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(ValueError, match=r"book\.xlsx \(\d+ bytes\) is not a checkpoint"):
        Hgad.load_from_checkpoint(path)


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"^'state_dict'$"), explain_checkpoint_errors(tmp_path / "gone.ckpt"):
        raise KeyError("state_dict")
