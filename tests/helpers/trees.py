# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tiny image datasets on disk, in the layouts of the datasets that anomalib reads."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

SIZE = (32, 32)


def write_image(path: Path, size: tuple[int, int] = SIZE, mode: str = "RGB", defect: bool = False) -> Path:
    """Write an image: noise that the end of its path decides, with a white square if it has a defect."""
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-4:]).encode()))
    pixels = rng.normal(size=(size[1], size[0], 3)) * 10 + 100
    if defect:
        pixels[2:10, 2:10] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(path)
    return path


def write_refused_image(path: Path) -> Path:
    """Write a PNG or PGM file that Pillow refuses by a ValueError: cut in its header, or with a chunk too short."""
    if path.suffix == ".pgm":
        path.write_bytes(b"P5\n12")
        return path
    write_image(path)
    content, chunk = path.read_bytes(), b"tRNS\0"
    path.write_bytes(content[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:])
    return path


def write_dds_of_no_kind(path: Path) -> Path:
    """Write a file that begins as DDS and is of no kind of it, which Pillow refuses by a NotImplementedError."""
    path.write_bytes(b"DDS " + struct.pack("<I", 124) + bytes(120))
    return path


def write_mask(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """Write the mask of the square that :func:`write_image` draws."""
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    pixels[2:10, 2:10] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def mvtec_class(
    folder: Path,
    train: int = 4,
    good: int = 2,
    bad: int = 2,
    masks: bool = True,
    size: tuple[int, int] = SIZE,
    mode: str = "RGB",
    suffix: str = ".png",
    kinds: tuple[str, ...] = ("crack",),
) -> Path:
    """Write a class in MVTec layout, with ``bad`` images of each kind of defect."""
    for number in range(train):
        write_image(folder / "train/good" / f"{number:03}{suffix}", size, mode)
    for number in range(good):
        write_image(folder / "test/good" / f"{number:03}{suffix}", size, mode)
    for kind in kinds:
        for number in range(bad):
            write_image(folder / "test" / kind / f"{number:03}{suffix}", size, mode, defect=True)
            if masks:
                write_mask(folder / "ground_truth" / kind / f"{number:03}_mask.png", size)
    return folder


def few_of_mvtec_class(source: Path, folder: Path, train: int = 12, test: int = 4) -> None:
    """Link the first images of a class in MVTec layout: ``train`` normal ones, ``test`` of each kind of test image."""
    images = sorted((source / "train/good").iterdir())[:train]
    for kind in (source / "test").iterdir():
        images += sorted(kind.iterdir())[:test]
    for image in images:
        mask = source / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        for file in (image, mask) if mask.exists() else (image,):
            place = folder / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file)


def folder_class(folder: Path, good: int = 6, bad: int = 4, masks: bool = True, suffix: str = ".png") -> Path:
    """Write a class with folders ``good``, ``bad`` and ``masks``, with names that are not padded to equal length."""
    for number in range(good):
        write_image(folder / "good" / f"{number}{suffix}")
    for number in range(bad):
        write_image(folder / "bad" / f"{number}{suffix}", defect=True)
        if masks:
            write_mask(folder / "masks" / f"{number}_mask.png")
    return folder


def visa_class(root: Path, category: str) -> None:
    """Write a VisA category as anomalib prepares it."""
    folder = root / "visa_pytorch" / category
    for number in range(4):
        write_image(folder / "train/good" / f"{number:03}.JPG")
    for number in range(2):
        write_image(folder / "test/good" / f"{number:03}.JPG")
        write_image(folder / "test/bad" / f"{number:03}.JPG", defect=True)
        write_mask(folder / "ground_truth/bad" / f"{number:03}.png")


def btech_class(root: Path, category: str) -> None:
    """Write a BTAD category."""
    folder = root / category
    for number in range(4):
        write_image(folder / "train/ok" / f"{number:04}.png")
    for number in range(2):
        write_image(folder / "test/ok" / f"{number:04}.png")
        write_image(folder / "test/ko" / f"{number:04}.png", defect=True)
        write_mask(folder / "ground_truth/ko" / f"{number:04}.png")


def mvtec_3d_class(root: Path, category: str, masks: str = "gt", ending: str = "") -> None:
    """Write an MVTec 3D-AD category, whose depth files are no images: they must not be read."""
    for split, kind, count in (("train", "good", 4), ("test", "good", 2), ("test", "hole", 2)):
        folder = root / category / split / kind
        for number in range(count):
            name = f"{number:03}{ending}"
            write_image(folder / "rgb" / f"{name}.png", defect=kind == "hole")
            (folder / "xyz").mkdir(exist_ok=True)
            (folder / "xyz" / f"{name}.tiff").write_bytes(b"depth")
            if split == "test":
                write_mask(folder / masks / f"{name}.png")


def mvtec_loco_class(root: Path, category: str) -> None:
    """Write an MVTec LOCO category, with several masks for an image."""
    folder = root / category
    for number in range(2):
        for split in ("train", "validation", "test"):
            write_image(folder / split / "good" / f"{number:03}.png")
        write_image(folder / "test/logical_anomalies" / f"{number:03}.png", defect=True)
        for mask in range(2):
            write_mask(folder / "ground_truth/logical_anomalies" / f"{number:03}/{mask:03}.png")


def autovi_class(root: Path, category: str) -> None:
    """Write an AutoVI category."""
    folder = root / category
    for number in range(2):
        for split in ("train", "test"):
            write_image(folder / split / "good" / f"{number:04}.png")
        write_image(folder / "test/missing" / f"{number:04}.png", defect=True)
        write_mask(folder / "ground_truth/missing" / f"{number:04}/0000.png")


def bmad_class(root: Path, category: str) -> None:
    """Write a BMAD category without masks, as Chest is."""
    folder = root / category
    for number in range(2):
        write_image(folder / "train/good" / f"{number}.png")
        for split in ("valid", "test"):
            write_image(folder / split / "good/img" / f"{number}.png")
            write_image(folder / split / "Ungood/img" / f"{number}.png", defect=True)


def mvtec_ad_2_class(root: Path, category: str) -> None:
    """Write an MVTec AD 2 category, with private test images that nobody has masks of."""
    folder = root / category
    for number in range(2):
        for split in ("train", "validation", "test_public"):
            write_image(folder / split / "good" / f"{number:03}_regular.png")
        write_image(folder / "test_public/bad" / f"{number:03}_regular.png", defect=True)
        write_mask(folder / "test_public/ground_truth/bad" / f"{number:03}_regular_mask.png")
        for split in ("test_private", "test_private_mixed"):
            write_image(folder / split / f"{number:03}_regular.png")


def real_iad_class(root: Path, category: str) -> None:
    """Write a Real-IAD category at 256 pixels, with the table that says what is for training."""
    folder = root / "realiad_256" / category
    table: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for number in range(2):
        for split in ("train", "test"):
            image = f"OK/S{number:04}/{category}_{number:04}_OK_C1_{split}.jpg"
            write_image(folder / image)
            table[split].append({"image_path": image, "anomaly_class": "OK"})
        image, mask = (f"NG/AK/S{number:04}/{category}_{number:04}_NG_C1{end}" for end in (".jpg", "_mask.png"))
        write_image(folder / image, defect=True)
        write_mask(folder / mask)
        table["test"].append({"image_path": image, "mask_path": mask, "anomaly_class": "AK"})
    file = root / "realiad_jsons/realiad_jsons" / f"{category}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(table))


def kaputt_class(root: Path, material: str) -> None:
    """Write a material of Kaputt, whose tables say what an image shows; as pickles: pandas alone writes no Parquet."""
    for split in ("train", "validation", "test"):
        rows = []
        for number in range(4):
            defect = split != "train" and number % 2 == 1
            image, mask = (
                f"data/{split}/query-data/{kind}/{material}_{number}.{end}"
                for kind, end in (("image", "jpg"), ("mask", "png"))
            )
            write_image(root / "query-image" / image, defect=defect)
            if defect:
                write_mask(root / "query-mask" / mask)
            files = {"query_image": image, "query_mask": mask, "capture_id": f"{material}_{number}"}
            rows.append(files | {"item_material": material, "defect_types": "hole" * defect, "defect": defect})
        table = root / "datasets" / f"query-{split}.parquet"
        table.parent.mkdir(exist_ok=True)
        others = [pd.read_pickle(table)] if table.exists() else []
        pd.concat([*others, pd.DataFrame(rows)], ignore_index=True).to_pickle(table)


def adam_3d_class(root: Path, category: str) -> None:
    """Write a 3D-ADAM category, of almost the same layout."""
    mvtec_3d_class(root, category, masks="ground_truth", ending="_C")


def cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Write CIFAR-10 in its real layout with 5 training and 2 test images of each class, which torchvision takes.

    Returns:
        For ``train`` and ``test`` the images, shape (N, 32, 32, 3), and the numbers of their classes, in order.
    """
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    subsets: dict[str, tuple[list[np.ndarray], list[int]]] = {"train": ([], []), "test": ([], [])}
    digests: dict[str, str] = {}

    def write(name: str, content: dict[str, object]) -> None:
        pickled = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(pickled)
        digests[name] = hashlib.md5(pickled).hexdigest()

    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        images, targets = subsets["test" if name == "test_batch" else "train"]
        labels = rng.permutation([*range(10)] * (2 if name == "test_batch" else 1)).tolist()
        # Dark to bright by class, for images to show it.
        pixels = rng.integers(0, 40, (len(labels), 3072)) + 20 * np.array(labels)[:, None]
        data = pixels.astype(np.uint8)
        filenames = [f"image_{number}.png" for number in range(len(labels))]
        write(name, {"batch_label": name, "labels": labels, "data": data, "filenames": filenames})
        images.extend(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        targets.extend(labels)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    write("batches.meta", {"num_cases_per_batch": 10, "label_names": names, "num_vis": 3072})
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5] for name, md5 in digests.items() if "data_batch" in name])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": digests["batches.meta"]})
    return {split: (np.stack(images), targets) for split, (images, targets) in subsets.items()}
