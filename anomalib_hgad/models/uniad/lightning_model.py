# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""UniAD as an anomalib model: training, validation, test and prediction.

Paper: A Unified Model for Multi-class Anomaly Detection, NeurIPS 2022, https://arxiv.org/abs/2206.03687
"""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments for the config schema.

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from anomalib_hgad.common.backbones import image_statistics
from anomalib_hgad.common.checks import check_range, check_types
from anomalib_hgad.data.letters import accept_all_letters
from anomalib_hgad.models.base import COMPONENTS, PluginModel, height_and_width
from anomalib_hgad.models.schedule import total_steps
from anomalib_hgad.models.uniad.torch_model import UniAdModel


class UniAd(PluginModel, AnomalibModule):
    """UniAD: one model that inspects many product classes, without class labels.

    A frozen backbone extracts features of several layers, and a transformer learns to reconstruct those of normal
    images; no token attends to itself or its neighbours, so it cannot copy the features. The distance between features
    and reconstruction is the anomaly score. Train it on :class:`~anomalib_hgad.MultiClass`, or on any other anomalib
    datamodule.

    Args:
        backbone: timm model name.
            Defaults to ``"tf_efficientnet_b4"``.
        layers: Layers of the backbone to extract, all resized to one grid.
            Defaults to ``("blocks.0", "blocks.1", "blocks.2", "blocks.4")``, 272 channels.
        image_size: Size that images are resized to: the side of a square, or height and width. The aspect ratio of an
            image is not kept.
            Defaults to ``224``.
        pre_trained: Download pre-trained weights for the backbone.
            Defaults to ``True``.
        backbone_weights: Local file (.safetensors, .pth) with the weights of the backbone, for machines without
            internet; nothing is downloaded then. It may contain only the stages in use. ``"package"`` uses the
            weights of an installed package, listed in docs/how-to/backbones.md.
            Defaults to ``None``.
        grid_size: Grid that the features are resized to, the tokens of the transformer: the side of a square, or
            height and width.
            Defaults to ``14``.
        hidden_dim: Size of the embedding of a token in the transformer, even and a multiple of ``num_heads``.
            Defaults to ``256``.
        encoder_layers: Number of layers of the encoder.
            Defaults to ``4``.
        decoder_layers: Number of layers of the decoder.
            Defaults to ``4``.
        num_heads: Number of heads of every attention.
            Defaults to ``8``.
        feedforward_dim: Hidden size of the feed-forward networks.
            Defaults to ``1024``.
        dropout: Dropout rate in training.
            Defaults to ``0.1``.
        neighborhood: Window around a token that it does not attend to, in tokens: the odd side of a square, or odd
            height and width. ``1`` is only the token itself.
            Defaults to ``7``.
        jitter_scale: Standard deviation of the noise on a token f of C channels in training, in multiples of the
            token's ||f|| / C.
            Defaults to ``20.0``.
        jitter_probability: Probability that an image gets this noise.
            Defaults to ``1.0``.
        lr: Learning rate of AdamW.
            Defaults to ``1e-4``.
        weight_decay: Weight decay of AdamW.
            Defaults to ``1e-4``.
        lr_drop_start: Fraction of the training after which the learning rate drops.
            Defaults to ``0.8``.
        lr_drop_factor: Learning rate after the drop, relative to that before it.
            Defaults to ``0.1``.
        seed: Seed of all random numbers, set before the weights are initialised. anomalib 2.7's command line accepts
            ``--seed_everything`` but ignores it.
            Defaults to ``None``, no seed.
        pre_processor: Pre-processor, or whether to use the default one.
            Defaults to ``True``.
        post_processor: Post-processor, or whether to use the default one.
            Defaults to ``True``.
        evaluator: Evaluator, or whether to use the default one.
            Defaults to ``True``.
        visualizer: Visualizer, or whether to use the default one.
            Defaults to ``True``.

    Raises:
        ValueError: If an argument is out of range, or if there is no such backbone or layer.
        TypeError: If an argument has the wrong type.
        FileNotFoundError: If the weights file does not exist.
        RuntimeError: If the backbone's weights cannot be downloaded.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_hgad import MultiClass, UniAd
        >>> datamodule = MultiClass(dataset="MVTecAD", root="./datasets/MVTecAD", train_batch_size=64)
        >>> Engine(max_epochs=1000).train(UniAd(), datamodule=datamodule)  # doctest: +SKIP
    """

    model: UniAdModel
    default_epochs = 1000
    default_image_size = (224, 224)

    def __init__(
        self,
        backbone: str = "tf_efficientnet_b4",
        layers: Sequence[str] = ("blocks.0", "blocks.1", "blocks.2", "blocks.4"),
        image_size: int | tuple[int, int] = 224,
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        grid_size: int | tuple[int, int] = 14,
        hidden_dim: int = 256,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        num_heads: int = 8,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        neighborhood: int | tuple[int, int] = 7,
        jitter_scale: float = 20.0,
        jitter_probability: float = 1.0,
        lr: float = 1e-4,
        weight_decay: float = 1e-4,
        lr_drop_start: float = 0.8,
        lr_drop_factor: float = 0.1,
        seed: int | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        check_types(UniAd.__init__, locals(), left_out=COMPONENTS)
        if seed is not None:
            seed_everything(seed, workers=True)
        size = height_and_width(image_size)
        given = pre_processor is not True
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(size, *image_statistics(backbone))
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        accept_all_letters()  # of folders to predict
        self.pre_processor_given = given
        self.check_components(size)
        self.use_one_transform()
        check_range("0 < {} < inf", lr=lr, lr_drop_factor=lr_drop_factor)
        check_range("0 <= {} < 1", lr_drop_start=lr_drop_start)
        self.lr = lr
        self.weight_decay = weight_decay
        self.lr_drop_start = lr_drop_start
        self.lr_drop_factor = lr_drop_factor
        self.model = UniAdModel(
            backbone=backbone,
            layers=layers,
            image_size=size,
            pre_trained=pre_trained,
            backbone_weights=backbone_weights,
            grid_size=height_and_width(grid_size),
            hidden_dim=hidden_dim,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            num_heads=num_heads,
            feedforward_dim=feedforward_dim,
            dropout=dropout,
            neighborhood=height_and_width(neighborhood),
            jitter_scale=jitter_scale,
            jitter_probability=jitter_probability,
        )

    @property
    def settings(self) -> dict[str, object]:
        """Settings that scores depend on."""
        return super().settings | {"model": "UniAd", **self.model.settings}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with one drop of the learning rate."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = AdamW(trained, lr=self.lr, weight_decay=self.weight_decay)
        drop = self.lr_drop_start * total_steps(self.trainer)
        scheduler = LambdaLR(optimizer, lambda step: 1.0 if step < drop else self.lr_drop_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
        """Compute the loss of a batch.

        Args:
            batch: Batch of normal images.
            *args: Unused.
            **kwargs: Unused.

        Returns:
            The loss.
        """
        del args, kwargs
        loss = self.model.loss(batch.image)
        size = batch.batch_size
        self.log(
            "train_loss", loss.detach(), on_step=True, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True
        )
        return loss

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> ImageBatch:  # noqa: ANN401
        """Predict a batch; the same in validation, test and prediction.

        Args:
            batch: Batch of images.
            *args: Unused.
            **kwargs: Unused.

        Returns:
            The same batch with predictions.
        """
        del args, kwargs
        prediction = self.model(batch.image)
        return batch.update(pred_score=prediction.pred_score, anomaly_map=prediction.anomaly_map)

    test_step = validation_step
    predict_step = validation_step
