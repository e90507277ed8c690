# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Check that exports give the results of their checkpoint."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments.

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.common.progress import track
from anomalib_hgad.data.arguments import check_arguments, multi_class
from anomalib_hgad.data.folders import check_permission, image_files, subfolders
from anomalib_hgad.data.images import read_checked
from anomalib_hgad.data.layouts import normal_folders
from anomalib_hgad.report.parity.differences import ImageDifference, Tolerances, compare, failures, summarise
from anomalib_hgad.report.parity.exports import Export, load_export
from anomalib_hgad.report.parity.reference import Reference
from anomalib_hgad.report.parity.results import ENDINGS, show, write


def check_export(
    exports: list[Path],
    ckpt_path: Path,
    data: dict[str, Any],
    model: str | None = None,
    output: Path | None = None,
    score_tolerance: float = 1e-3,
    map_tolerance: float = 1e-3,
    mask_tolerance: float = 1e-3,
    label_tolerance: float = 0.0,
) -> list[str]:
    """Check that exported files score images as their checkpoint does in a test.

    The exit status is 1 if one does not. Each file is loaded with the defaults of its runtime: an .xml file by
    OpenVINO, .onnx by onnxruntime, .pt by anomalib's TorchInferencer, .pt2 by torch.export. Any model of anomalib
    is supported.

    Args:
        exports: Exported files.
        ckpt_path: The checkpoint that they were exported from.
        data: Arguments of ``MultiClass``, whose test images are used. ``root`` alone may also be any folder of images.
        model: Name of the model in anomalib, such as ``Padim``, if neither the checkpoint nor the folders that
            it is in name it.
        output: File for the results, .json or .csv.
        score_tolerance: Largest accepted difference of a score, absolute up to 1 and relative above. The default is for
            FP32; FP16 and INT8 round, and need more.
        map_tolerance: The same for a pixel of an anomaly map.
        mask_tolerance: Fraction of the pixels of an image that may be marked in only one of both.
        label_tolerance: Fraction of the images that may have another label or class. A label is not counted if
            both scores are within score_tolerance of the threshold.

    Returns:
        Differences beyond the tolerances, a sentence each.

    Raises:
        ValueError: If a file cannot be read or is of another model, or if a setting is out of range.
        FileNotFoundError: If a file is missing, or if there are no images.
        ModuleNotFoundError: If the runtime of a file is not installed.
    """
    tolerances = Tolerances(score_tolerance, map_tolerance, mask_tolerance, label_tolerance)
    check_range("0 <= {} < inf", score_tolerance=score_tolerance, map_tolerance=map_tolerance)
    check_range("0 <= {} <= 1", mask_tolerance=mask_tolerance, label_tolerance=label_tolerance)
    if output is not None and output.suffix not in ENDINGS:
        msg = f"Expected a .json or .csv file as output, got {output}."
        raise ValueError(msg)
    loaded = [load_export(path) for path in exports]
    reference = Reference(ckpt_path, model)
    for export in loaded:
        check_same_model(export, reference)
    paths = images_to_compare(data)
    differences: list[list[ImageDifference]] = [[] for _ in loaded]
    for path in track(paths, "Comparing the exports"):
        image = read_checked(path)
        expected = reference.predict(image)
        for export, of_export in zip(loaded, differences, strict=True):
            of_export.append(compare(path, expected, export.predict(image), reference.threshold, tolerances))
    figures = [summarise(export, of_export) for export, of_export in zip(loaded, differences, strict=True)]
    failed = [
        sentence
        for of_file, of_export in zip(figures, differences, strict=True)
        for sentence in failures(of_file, of_export, tolerances)
    ]
    show(figures, differences, loaded, reference.without_labels, failed)
    if output is not None:
        write(output, figures, ckpt_path, tolerances, failed)
    return failed


def images_to_compare(data: Mapping[str, Any]) -> list[Path]:
    """Images that a test reads, or all in a folder that holds no product.

    Args:
        data: Arguments of :class:`~anomalib_hgad.MultiClass`.

    Returns:
        Their files.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If an argument is wrong, or from the datamodule.
    """
    check_arguments(data)
    root = Path(data.get("root") or "")
    normal_dir = data.get("normal_dir")
    if data.keys() == {"root"} and not any(normal_folders(place, None) for place in (root, *subfolders(root))):
        check_permission(root)
        paths = image_files(root)
    else:
        is_product = "root" in data and "categories" not in data and normal_folders(root, normal_dir)
        one = {"root": root.resolve().parent, "categories": [root.resolve().name]} if is_product else {}
        datamodule = multi_class(dict(data) | one)
        datamodule.setup()
        samples = datamodule.test_data.samples if hasattr(datamodule, "test_data") else {"image_path": []}
        paths = [Path(path) for path in samples["image_path"]]
    if not paths:
        msg = f"Expected images to compare in {root}, or test images of products there; found none. Correct data.root."
        raise FileNotFoundError(msg)
    return paths


def check_same_model(export: Export, reference: Reference) -> None:
    """Check that a file is not of another model by its metadata.

    Args:
        export: The file.
        reference: The checkpoint.

    Raises:
        ValueError: If it is.
    """
    said = str(export.description.get("model", "")).rpartition(".")[2]
    here = type(reference.model).__name__
    if said and said != here:
        msg = f"{export.path} is a model {said}, but the checkpoint is one of {here}: give the checkpoint that it was "
        msg += "exported from."
        raise ValueError(msg)
    names = export.description.get("class_names")
    if names is not None and names != reference.class_names:
        msg = f"{export.path} has the classes {', '.join(names)}, but the checkpoint has "
        msg += f"{', '.join(reference.class_names or []) or 'none'}: export the checkpoint again, or give the one that "
        msg += "the file was exported from."
        raise ValueError(msg)
