# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""HGAD as an anomalib model: training, validation, test and prediction.

Paper: Hierarchical Gaussian Mixture Normalizing Flow Modeling for Unified Anomaly Detection, ECCV 2024,
https://arxiv.org/abs/2403.13349
"""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments for the config schema.

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from anomalib_hgad.common.checks import check_choice, check_range
from anomalib_hgad.common.encoder import image_statistics
from anomalib_hgad.data.batch import ClassImageBatch, FeatureBatch
from anomalib_hgad.data.hold_out import HoldOut
from anomalib_hgad.models.base import resize_and_normalize
from anomalib_hgad.models.callbacks import NamedImages, RandomState
from anomalib_hgad.models.checkpoint_io import WholeCheckpoints
from anomalib_hgad.models.hgad.anomaly_map import ScoreKind
from anomalib_hgad.models.hgad.callbacks import ClassCheck, NormalConstants
from anomalib_hgad.models.hgad.class_model import ClassModel
from anomalib_hgad.models.hgad.export import FoldedExport
from anomalib_hgad.models.hgad.feature_cache.cache import FeatureCache
from anomalib_hgad.models.hgad.flows import FlowKind
from anomalib_hgad.models.hgad.loss import total_loss
from anomalib_hgad.models.hgad.prediction import ClassSource, predict_batch
from anomalib_hgad.models.hgad.torch_model import HgadModel, PriorKind
from anomalib_hgad.models.schedule import TrainingCourse, make_optimizer, total_steps

logger = logging.getLogger(__name__)


class Hgad(FoldedExport, ClassModel, AnomalibModule):
    """HGAD: one model that inspects many product classes.

    A frozen backbone gives features of several levels. For each level a normalizing flow maps them to latents; their
    prior is a mixture of classes, each of them a mixture of Gaussians. Train
    it on :class:`~anomalib_hgad.MultiClass`, or on any other anomalib datamodule, which is one class.

    The classes come from the datamodule when training starts, and are kept in the checkpoint.

    Args:
        backbone: timm model name.
            Defaults to ``"tf_efficientnet_b6"``.
        layers: Layers of the backbone whose features are taken. With ``scales`` they make the levels: every layer at
            every scale.
            Defaults to ``("blocks.4",)``, the stage of stride 16.
        scales: Sizes of the image pyramid relative to ``image_size``.
            Defaults to ``(1.0, 0.5, 0.25)``.
        image_size: Size that images are resized to, a side of a square or height and width.
            Defaults to ``1024``.
        pre_trained: Download pre-trained weights for the backbone.
            Defaults to ``True``.
        backbone_weights: Local file (.safetensors, .pth) with the weights of the backbone, for machines without
            internet; nothing is downloaded then. It may hold the stages that are used alone.
            Defaults to ``None``.
        num_classes: Expected number of product classes. ``None`` takes it from the data.
            Defaults to ``None``.
        num_centers: Gaussian centres of a class (M).
            Defaults to ``10``.
        flow: Family of the flows: ``"cflow"``, position by position with a code of the position, as in the paper;
            ``"fastflow"``, convolutions over the feature maps; ``"semantic"``, of the class token of a Vision
            Transformer, for anomalies of what an image shows: its anomaly maps have one value everywhere.
            Defaults to ``"cflow"``.
        coupling_blocks: Coupling blocks of a level's flow.
            Defaults to ``None``, the family's own: 12, 8 and 4.
        clamp_alpha: Clamp of the log-scales of the coupling blocks.
            Defaults to ``None``, the family's own: 1.9, 2 and 3.
        condition_dim: Length of the position code of ``"cflow"``, a multiple of 4.
            Defaults to ``256``.
        kernel_sizes: Widths of the convolutions of ``"fastflow"``, in turn.
            Defaults to ``(3, 1)``.
        hidden_ratio: Hidden channels of its couplings, relative to the channels that they look at.
            Defaults to ``1.0``.
        whiten: Whiten the features, as a part of the flow, by constants from the training images. The paper does not,
            and learns slower.
            Defaults to ``True``.
        prior: ``"hierarchical"``; ``"fixed_centers"`` does not train the main class centres; ``"single_gaussian"`` is
            one standard Gaussian for all classes, as in CFLOW-AD.
            Defaults to ``"hierarchical"``.
        inter_weight: Weight of the inter-class likelihood (lambda_1, Eq. 6).
            Defaults to ``1.0``.
        mutual_information_weight: Weight of the mutual information of latent and class (lambda_2, Eq. 8).
            Defaults to ``100.0``.
        entropy_weight: Weight of the entropy of the classes (Eq. 9).
            Defaults to ``1.0``.
        intra_weight: Weight of the likelihood within a class (Eq. 10).
            Defaults to ``1.0``.
        likelihood_weight: Weight of the log-sigmoid of the likelihood within a class (CFLOW-AD's form).
            Defaults to ``1.0``.
        label_smoothing: Share of the label spread over all classes in the mutual information.
            Defaults to ``0.02``.
        first_stage: Share of the training with the inter-class losses alone (Eq. 6, 8 and 9); 0 trains in one stage.
            Defaults to ``0.08``.
        position_share: Share of the positions of the feature maps that a training step takes, drawn anew for each step,
            the same ones of all images. Neighbours tell nearly the same, so that less than all of them trains faster.
            Flows of the families other than ``"cflow"`` need whole maps, and take all.
            Defaults to ``0.25``.
        lr: Learning rate of Adam.
            Defaults to ``2e-4``.
        weight_decay: Weight decay of the flows; centres and logits have none.
            Defaults to ``1e-4``.
        warmup: Share of the training in which the learning rate rises from a tenth; then it falls along a cosine.
            Defaults to ``0.08``.
        score: What anomaly maps are made of: the map of the ``"log_likelihood"``, that of the ``"entropy"``, their
            ``"sum"``, or their ``"product"`` as in the paper.
            Defaults to ``"sum"``.
        class_source: ``"inferred"`` scores an image without its label; ``"given"`` uses the label where the batch has
            one. The test reports both.
            Defaults to ``"inferred"``.
        calibrate: Put the scores of all classes on one scale, so that one threshold serves all.
            Defaults to ``True``.
        calibration_share: Share of every class's training images that is held out of the training for that scale, if
            the data is :class:`~anomalib_hgad.MultiClass` with several classes; 0 takes the training images
            themselves, whose scores are lower than those of unseen normal images.
            Defaults to ``0.1``.
        feature_cache: Compute the features of the training images once, not in every epoch. They are kept in main
            memory if they take at most half of what is free, else in files in float16, which later trainings with the
            same images, backbone and pre-processing use again. A path is the folder of these files; ``True`` is the
            user's cache folder. Augmentation turns it off.
            Defaults to ``True``.
        seed: Seed of all random numbers, set before the weights are drawn. anomalib 2.7's command line takes
            ``--seed_everything`` and does nothing with it.
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
        FileNotFoundError: If there is no file of weights at the given path.
        RuntimeError: If the backbone's weights cannot be downloaded.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_hgad import Hgad, MultiClass
        >>> datamodule = MultiClass(dataset="MVTecAD", root="./datasets/MVTecAD")
        >>> Engine(max_epochs=100).train(Hgad(), datamodule=datamodule)  # doctest: +SKIP
    """

    model: HgadModel
    default_epochs = 100

    def __init__(
        self,
        backbone: str = "tf_efficientnet_b6",
        layers: Sequence[str] = ("blocks.4",),
        scales: Sequence[float] = (1.0, 0.5, 0.25),
        image_size: int | tuple[int, int] = 1024,
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        num_classes: int | None = None,
        num_centers: int = 10,
        flow: FlowKind = "cflow",
        coupling_blocks: int | None = None,
        clamp_alpha: float | None = None,
        condition_dim: int = 256,
        kernel_sizes: Sequence[int] = (3, 1),
        hidden_ratio: float = 1.0,
        whiten: bool = True,
        prior: PriorKind = "hierarchical",
        inter_weight: float = 1.0,
        mutual_information_weight: float = 100.0,
        entropy_weight: float = 1.0,
        intra_weight: float = 1.0,
        likelihood_weight: float = 1.0,
        label_smoothing: float = 0.02,
        first_stage: float = 0.08,
        position_share: float = 0.25,
        lr: float = 2e-4,
        weight_decay: float = 1e-4,
        warmup: float = 0.08,
        score: ScoreKind = "sum",
        class_source: ClassSource = "inferred",
        calibrate: bool = True,
        calibration_share: float = 0.1,
        feature_cache: bool | str | Path = True,
        seed: int | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        if seed is not None:
            seed_everything(seed, workers=True)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        size = (height, width)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(size, *image_statistics(backbone))
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        check_range("0 < {} < inf", num_classes=1 if num_classes is None else num_classes, lr=lr)
        check_range("0 < {} <= 1", position_share=position_share)
        check_range(
            "0 <= {} < inf",
            inter_weight=inter_weight,
            mutual_information_weight=mutual_information_weight,
            entropy_weight=entropy_weight,
            intra_weight=intra_weight,
            likelihood_weight=likelihood_weight,
            weight_decay=weight_decay,
        )
        self.loss_weights = {
            "inter": inter_weight,
            "mutual_information": mutual_information_weight,
            "entropy": entropy_weight,
            "intra": intra_weight,
            "likelihood": likelihood_weight,
        }
        check_range("0 <= {} < 1", first_stage=first_stage, warmup=warmup)
        check_range("0 <= {} < 1", label_smoothing=label_smoothing, calibration_share=calibration_share)
        check_choice(ClassSource, class_source=class_source)
        check_choice(FlowKind, flow=flow)
        check_choice(PriorKind, prior=prior)
        check_choice(ScoreKind, score=score)
        self.num_classes = num_classes
        self.whiten = whiten
        self.label_smoothing = label_smoothing
        self.first_stage = first_stage
        self.position_share = position_share
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.class_source = class_source
        self.calibrate = calibrate
        self.calibration_share = calibration_share
        self.held_out: Dataset[Any] | None = None
        self.model = HgadModel(
            backbone=backbone,
            layers=layers,
            scales=scales,
            image_size=size,
            pre_trained=pre_trained,
            backbone_weights=backbone_weights,
            num_classes=num_classes or 1,
            num_centers=num_centers,
            flow=flow,
            coupling_blocks=coupling_blocks,
            clamp_alpha=clamp_alpha,
            condition_dim=condition_dim,
            kernel_sizes=kernel_sizes,
            hidden_ratio=hidden_ratio,
            prior=prior,
            score=score,
        )
        self.class_names: list[str] = []
        self._feature_cache = FeatureCache(feature_cache)
        self._callbacks = [
            WholeCheckpoints(),
            ClassCheck(),
            NamedImages(),
            NormalConstants(),
            RandomState(),
            self._feature_cache,
        ]

    @staticmethod
    def configure_pre_processor(
        image_size: tuple[int, int] | None = None,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> PreProcessor:
        """Resize and normalise.

        Args:
            image_size: Height and width. Defaults to ``None``, 1024 x 1024.
            mean: Mean of the channels that the backbone was trained with. Defaults to ImageNet's.
            std: Their standard deviation. Defaults to ImageNet's.

        Returns:
            The pre-processor.
        """
        return resize_and_normalize(image_size or (1024, 1024), mean, std)

    def configure_callbacks(self) -> list[Callback]:
        """anomalib's components, and what happens around the steps."""
        return [*super().configure_callbacks(), *self._callbacks]

    def setup(self, stage: str) -> None:
        """Take the classes from the data when training starts, and hold out images for the calibration.

        Args:
            stage: What the trainer is about to do.

        Raises:
            ValueError: If the data has another number of classes than ``num_classes``, or if the score needs more.
        """
        if stage != TrainerFn.FITTING:
            return
        if not self.class_names:
            self._set_class_names(self._names_of_data())
        if self.model.num_classes == 1 and self.model.score == "entropy":
            msg = "With one class the entropy of the classes is always 0: expected score='sum', 'product' or "
            msg += "'log_likelihood', got 'entropy'."
            raise ValueError(msg)
        self.held_out = None
        if self.calibrate and self.model.num_classes > 1 and isinstance(self._datamodule, HoldOut):
            self.held_out = self._datamodule.hold_out(self.calibration_share)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, with warm-up and cosine by step."""
        self._feature_cache.start(self.trainer, self)
        optimizer = make_optimizer(
            self.model.flows.parameters(),
            self.model.priors.parameters(),
            self.lr,
            self.weight_decay,
            fused=not self.trainer.gradient_clip_val,
        )
        scheduler = LambdaLR(optimizer, self._course().learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _course(self) -> TrainingCourse:
        return TrainingCourse(total_steps(self.trainer), self.warmup, self.first_stage)

    def features(self, batch: ClassImageBatch | FeatureBatch) -> list[torch.Tensor]:
        """Feature maps of the levels, shapes (B, D, H, W), of a batch of images or of features kept of them."""
        return batch.features if isinstance(batch, FeatureBatch) else self.model.encoder(batch.image)

    def training_step(self, batch: ClassImageBatch | FeatureBatch, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
        """Loss of a batch, Eq. 11 summed over the levels.

        Args:
            batch: Batch of normal images with their classes.
            *args: Unused.
            **kwargs: Unused.

        Returns:
            The loss.
        """
        del args, kwargs
        class_index = self.mixture_class_index(batch)
        # All processes draw the same positions, and so does a resumed training.
        generator = torch.Generator().manual_seed(self.global_step)
        losses = self.model.losses(
            self.features(batch), class_index, self.label_smoothing, self.position_share, generator
        )
        stage = self._course().stage(self.global_step)
        loss = total_loss(losses, self.loss_weights, stage)
        size = batch.batch_size
        terms = {f"train_{name}": value.detach() for name, value in losses._asdict().items()}
        self.log_dict(terms, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        self.log(
            "train_loss", loss.detach(), on_step=True, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True
        )
        self.log("stage", float(stage), on_step=True, on_epoch=False, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: ClassImageBatch, *args: Any, **kwargs: Any) -> ClassImageBatch:  # noqa: ANN401
        """Predict a batch; the same in validation, test and prediction.

        Args:
            batch: Batch of images.
            *args: Unused.
            **kwargs: Unused.

        Returns:
            The same batch with predictions.
        """
        del args, kwargs
        class_index = self.mixture_class_index(batch) if batch.class_index is not None else None
        predict_batch(self.model, batch, class_index, self.class_names, self.class_source)
        return batch

    test_step = validation_step
    predict_step = validation_step
