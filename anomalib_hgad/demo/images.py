# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The demo's dataset: pictures of five products, drawn on the spot and laid out like MVTec AD."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_hgad.common.files import atomic_folder
from anomalib_hgad.demo.products import PRODUCTS
from anomalib_hgad.demo.scene import photograph

VERSION = 1  # raise it when the pictures change
MARKER = "demo.json"
SIZE = 256

_SPLITS = {"train": 0, "test": 1}


def render(
    product: str, split: str, number: int, kind: str | None = None, seed: int = 0, size: int = SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one picture and the mask of its defect.

    Args:
        product: One of ``PRODUCTS``.
        split: "train" or "test".
        number: Which part of the split; parts differ in pose, light and texture.
        kind: One of the product's kinds of defect, or ``None`` for a sound part. The part itself does not depend on it.
        seed: Another seed gives another dataset.
        size: Side in pixels.

    Returns:
        The RGB picture, (size, size, 3), and its mask, (size, size), 255 where the part is defective and 0 elsewhere.

    Raises:
        ValueError: If the product does not know the kind of defect.
    """
    draw, kinds = PRODUCTS[product]
    if kind is not None and kind not in kinds:
        msg = f"{product} has the defects {', '.join(kinds)}, not {kind!r}."
        raise ValueError(msg)
    entropy = (seed, sorted(PRODUCTS).index(product), _SPLITS[split], number)
    part, harm, camera = (np.random.default_rng(s) for s in np.random.SeedSequence(entropy).spawn(3))
    scene, mask = draw(part, kind, harm)
    covered = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA) >= 0.5
    return photograph(scene, camera, size), np.asarray(covered, dtype=np.uint8) * np.uint8(255)


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image[..., ::-1] if image.ndim == 3 else image
    if not cv2.imwrite(str(path), pixels):
        msg = f"Could not write {path}."
        raise OSError(msg)


def _write_class(folder: Path, product: str, seed: int, train: int, good: int, per_kind: int) -> None:
    for number in range(train):
        _save(folder / "train" / "good" / f"{number:03d}.png", render(product, "train", number, seed=seed)[0])
    for number in range(good):
        _save(folder / "test" / "good" / f"{number:03d}.png", render(product, "test", number, seed=seed)[0])
    part = good
    for kind in PRODUCTS[product].kinds:
        for number in range(per_kind):
            image, mask = render(product, "test", part, kind, seed)
            _save(folder / "test" / kind / f"{number:03d}.png", image)
            _save(folder / "ground_truth" / kind / f"{number:03d}_mask.png", mask)
            part += 1


def write_demo_dataset(root: Path | str, *, train: int = 40, good: int = 12, per_kind: int = 5, seed: int = 0) -> Path:
    """Write the dataset, or reuse it if it is already in ``root``.

    Args:
        root: Folder of the dataset. The classes become its subfolders, each in MVTec layout.
        train: Number of normal training images per class.
        good: Number of normal test images per class.
        per_kind: Number of anomalous test images per class and kind of defect.
        seed: Another seed gives another dataset.

    Returns:
        ``root`` as a path.

    Raises:
        FileExistsError: If ``root`` exists and contains anything else.
    """
    root = Path(root)
    made = {"version": VERSION, "train": train, "good": good, "per_kind": per_kind, "seed": seed}
    marker = root / MARKER
    if marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8")) == made:
            return root
        msg = f"{root} contains another version of the demo dataset. Remove it or choose another folder."
        raise FileExistsError(msg)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        msg = f"{root} exists and is not the demo dataset. Choose another folder."
        raise FileExistsError(msg)
    with atomic_folder(root) as unfinished, ThreadPoolExecutor() as pool:
        # NumPy and OpenCV leave the interpreter to others while they compute.
        counts = (seed, train, good, per_kind)
        writing = [pool.submit(_write_class, unfinished / product, product, *counts) for product in PRODUCTS]
        for of_class in writing:
            of_class.result()
        (unfinished / MARKER).write_text(json.dumps(made), encoding="utf-8")
    return root
