# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Make the demo's backbone: a small student learns a teacher's features on drawn pictures.

``backbone.safetensors`` beside this file came from::

    python -m anomalib_hgad.demo.distill --teacher_weights mobilenetv2_100_timm_tf_ptq_dequant.safetensors \
        --output anomalib_hgad/demo/backbone.safetensors

The teacher is timm's ``mobilenetv2_100`` (Apache-2.0). It sees the same pictures as the student, and its maps of
strides 8 and 16, standardised per channel, are what the student's maps of those strides predict through a 1x1
convolution each. The convolutions are thrown away. The pictures are random ``patterns`` and, two in five, drawings of
the demo's products other than those of its dataset, half of them in other colours. No photograph is used, and no weight
of the teacher is copied: the student starts from random numbers.
"""

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from anomalib_hgad.demo import patterns
from anomalib_hgad.demo.backbone import BACKBONE, CHANNELS, LAYERS, build_backbone, up_to_stride_16
from anomalib_hgad.demo.products import PRODUCTS
from anomalib_hgad.demo.scene import photograph

logger = logging.getLogger(__name__)

TEACHER = "mobilenetv2_100"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PICTURE_SIDE = 256  # of the pictures, in pixels
PRODUCT_SHARE = 0.4
CROP_SIDES = (96, 128, 192)
PIXELS_PER_BATCH = 12 * 128 * 128


def build_teacher(weights: Path) -> nn.Module:
    """Return the frozen teacher up to stride 16; it maps RGB in [-1, 1] to its maps of strides 8 and 16."""
    # "same" padding belongs to these weights, which come from TensorFlow.
    teacher = timm.create_model(TEACHER, pad_type="same", features_only=True, out_indices=(2, 3))
    wanted = teacher.state_dict()
    teacher.load_state_dict({name: value for name, value in load_file(weights).items() if name in wanted})
    teacher = up_to_stride_16(teacher, stages=5)
    return teacher.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)


class Heads(nn.Module):
    """The 1x1 convolutions from the student's maps to the teacher's, and the scale of the latter.

    Args:
        teacher_maps: Maps of a sample of pictures, each (N, C, H, W), whose mean and deviation per channel are taken.
    """

    def __init__(self, teacher_maps: list[Tensor]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, maps.shape[1], 1) for channels, maps in zip(CHANNELS, teacher_maps, strict=True)
        )
        self.mean = [maps.mean((0, 2, 3), keepdim=True) for maps in teacher_maps]
        self.std = [maps.std((0, 2, 3), keepdim=True) for maps in teacher_maps]

    def forward(self, student_maps: list[Tensor], teacher_maps: list[Tensor]) -> tuple[Tensor, list[float]]:
        """Return the loss, squared error plus cosine distance averaged over maps, and each map's explained variance."""
        total = torch.zeros(())
        explained = []
        for conv, mean, std, seen, taught in zip(
            self.convs, self.mean, self.std, student_maps, teacher_maps, strict=True
        ):
            guess, target = conv(seen), (taught - mean) / std
            error = F.mse_loss(guess, target)
            total = total + error + 1 - F.cosine_similarity(guess, target).mean()
            explained.append(1 - float(error.detach()) / float(target.var()))
        return total / len(explained), explained


def _drawn(seed: int, number: int) -> NDArray[np.uint8]:
    """Return one picture to learn from: of nothing in particular, or of a product that is in no demo dataset."""
    rng = np.random.default_rng([seed, number])
    if rng.uniform() >= PRODUCT_SHARE:
        return patterns.picture(rng, PICTURE_SIDE)
    draw, kinds = PRODUCTS[str(rng.choice(sorted(PRODUCTS)))]
    part, harm, camera = rng.spawn(3)
    kind = str(rng.choice(kinds)) if rng.uniform() < 0.5 else None
    image = photograph(draw(part, kind, harm)[0], camera, PICTURE_SIDE)
    return np.ascontiguousarray(image[..., rng.permutation(3)]) if rng.uniform() < 0.5 else image


def _crops(pool: NDArray[np.uint8], rng: np.random.Generator, side: int, count: int) -> Tensor:
    """Return crops of the pool at random scales, flipped, turned and recoloured, (N, 3, side, side) in [0, 1]."""
    batch = np.empty((count, side, side, 3), dtype=np.uint8)
    for row in range(count):
        image = pool[rng.integers(len(pool))]
        cut = min(PICTURE_SIDE, int(side * rng.uniform(0.7, 1.4)))
        top, left = rng.integers(0, PICTURE_SIDE - cut + 1, 2)
        crop = cv2.resize(image[top : top + cut, left : left + cut], (side, side), interpolation=cv2.INTER_AREA)
        crop = np.rot90(crop, int(rng.integers(4)))
        batch[row] = crop[:, ::-1] if rng.uniform() < 0.5 else crop
    images = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
    draw = torch.from_numpy(rng.uniform(0, 1, (7, count, 1, 1, 1))).float()
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (1.2 * draw[0])
    images = (images - 0.5) * (0.5 + draw[1]) + 0.5 + 0.4 * (draw[2] - 0.5)
    images = images * (0.85 + 0.3 * torch.cat([draw[3], draw[4], draw[5]], dim=1))
    return images.clamp(0, 1).contiguous(memory_format=torch.channels_last)


def _batches(pool: NDArray[np.uint8], rng: np.random.Generator) -> Iterator[Tensor]:
    while True:
        side = int(rng.choice(CROP_SIDES))
        yield _crops(pool, rng, side, max(4, PIXELS_PER_BATCH // side**2))


def distill(teacher: nn.Module, student: nn.Module, steps: int, pool_size: int, seed: int) -> list[float]:
    """Train the student in place and return the variance of the teacher's maps that it explains on unseen pictures."""
    torch.manual_seed(seed)
    started = time.monotonic()
    pool = np.stack([_drawn(seed, number) for number in range(pool_size)])
    unseen = np.stack([_drawn(seed, pool_size + number) for number in range(64)])
    logger.info("%d pictures in %.0f s", pool_size, time.monotonic() - started)

    mean, std = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        heads = Heads(teacher(_crops(pool, rng, 128, 256) * 2 - 1))
    student.to(memory_format=torch.channels_last).train()
    parameters = [*student.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=4e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    for number, images in zip(range(1, steps + 1), _batches(pool, rng), strict=False):
        with torch.no_grad():
            targets = teacher(images * 2 - 1)
        loss, explained = heads(student((images - mean) / std), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if number % 100 == 0 or number == steps:
            told = ", ".join(f"{value:.3f}" for value in explained)
            logger.info(
                "step %d, %.0f s, loss %.4f, explained %s",
                number,
                time.monotonic() - started,
                float(loss.detach()),
                told,
            )
    student.eval()
    with torch.no_grad():
        images = _crops(unseen, rng, PICTURE_SIDE, len(unseen))
        result: list[float] = heads(student((images - mean) / std), teacher(images * 2 - 1))[1]
    return result


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--teacher_weights", type=Path, required=True, help="safetensors file of timm's mobilenetv2_100"
    )
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--pool_size", type=int, default=3000, help="pictures to draw")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # one thread: the sums, and so the file, do not depend on the number of cores
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)

    student = build_backbone()
    explained = distill(build_teacher(args.teacher_weights), student, args.steps, args.pool_size, args.seed)
    told = ", ".join(f"{layer} {value:.3f}" for layer, value in zip(LAYERS, explained, strict=True))
    logger.info("variance explained on unseen pictures: %s", told)
    weights = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in student.state_dict().items()
    }
    metadata = {
        "model": BACKBONE,
        "layers": ",".join(LAYERS),
        "licence": "Apache-2.0",
        "teacher": f"timm {TEACHER}, Apache-2.0, weights from TensorFlow",
        "how": "distilled by anomalib_hgad.demo.distill on procedural pictures, from random weights",
        "steps": str(args.steps),
        "pool_size": str(args.pool_size),
        "seed": str(args.seed),
        "explained": told,
    }
    save_file(weights, args.output, metadata)


if __name__ == "__main__":
    main()
