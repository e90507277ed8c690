# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""HGAD as an anomalib model: training, validation, test and prediction.

Paper: Hierarchical Gaussian Mixture Normalizing Flow Modeling for Unified Anomaly Detection, ECCV 2024,
https://arxiv.org/abs/2403.13349
"""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments for the config schema.

import json
import logging
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataModule, ImageBatch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from anomalib_hgad.common.backbones import image_statistics
from anomalib_hgad.common.checks import check_choice, check_range, check_types
from anomalib_hgad.common.processes import are_repeated
from anomalib_hgad.data.batch import ClassImageBatch, FeatureBatch
from anomalib_hgad.data.letters import accept_all_letters
from anomalib_hgad.deploy.export import CLASS_TENSOR, NOVELTY_TENSOR
from anomalib_hgad.models.base import COMPONENTS, PluginModel, height_and_width
from anomalib_hgad.models.hgad.added_classes import ADDED_KEY, join_classes, set_shape
from anomalib_hgad.models.hgad.anomaly_map import ScoreKind
from anomalib_hgad.models.hgad.best_state import COURSE_KEY, BestState
from anomalib_hgad.models.hgad.calibration import PIXEL_LIMIT
from anomalib_hgad.models.hgad.callbacks import ClassCheck, ClosedForm, NormalConstants
from anomalib_hgad.models.hgad.class_labels import ClassLabels, with_class_fields
from anomalib_hgad.models.hgad.criterion import StateFigures
from anomalib_hgad.models.hgad.defect_kinds import KnownDefects, known_in, name_defects, save_known
from anomalib_hgad.models.hgad.export import name_tensors
from anomalib_hgad.models.hgad.feature_cache.cache import FeatureCache
from anomalib_hgad.models.hgad.fit_added import AddedClass, FitAdded
from anomalib_hgad.models.hgad.folding import fold
from anomalib_hgad.models.hgad.loss import checked_loss_weights, total_loss
from anomalib_hgad.models.hgad.normal_pass import patched_batches
from anomalib_hgad.models.hgad.novelty import NOVELTY_LIMIT
from anomalib_hgad.models.hgad.pixel_limits import PatchedBatch
from anomalib_hgad.models.hgad.prediction import ScoredClass, predict_batch
from anomalib_hgad.models.hgad.prior import CovarianceKind
from anomalib_hgad.models.hgad.products import add_classes, remove_class
from anomalib_hgad.models.hgad.torch_model import DEFAULT_LEVELS, HgadModel, PriorKind
from anomalib_hgad.models.hgad.training_data import TrainingData
from anomalib_hgad.models.schedule import (
    TrainingCourse,
    checked_training_arguments,
    make_optimizer,
    total_steps,
    train_for_one_pass,
)

logger = logging.getLogger(__name__)

ALL_IMAGES = "all images"
"""Name of the only threshold of a model whose mixture does not distinguish the classes."""


class Hgad(PluginModel, AnomalibModule):
    """HGAD: one model that inspects many product classes.

    A frozen backbone extracts features at several levels. For each level a normalizing flow maps them to latents, whose
    prior is a mixture over the classes, each of them a mixture of Gaussians. Train the model on
    :class:`~anomalib_hgad.MultiClass`, or on any other anomalib datamodule, which counts as one class.

    The classes come from the datamodule when training starts, and are saved in the checkpoint.

    Args:
        backbone: timm model name.
            Defaults to ``"resnet18"``.
        levels: Layers of the backbone to extract, or groups such as ``"blocks.2+3"``, whose mean is extracted. The
            values are the image sizes of the pyramid for each of them, relative to ``image_size``.
            Defaults to ``{"layer2": [1.0], "layer3": [1.0]}``, the stages of strides 8 and 16.
        neighborhood: Odd side of the square of positions over which the features of a level are averaged, as in
            PatchCore; 1 does not average.
            Defaults to ``3``.
        image_size: Size that images are resized to: the side of a square, or height and width. The aspect ratio of an
            image is not kept.
            Defaults to ``256``.
        pre_trained: Download pre-trained weights for the backbone.
            Defaults to ``True``.
        backbone_weights: Local file (.safetensors, .pth) with the weights of the backbone, for machines without
            internet; nothing is downloaded then. It may contain only the stages in use. ``"package"`` uses the
            weights of an installed package, listed in docs/how-to/backbones.md.
            Defaults to ``None``.
        num_classes: Expected number of product classes. ``None`` takes it from the data.
            Defaults to ``None``.
        num_centers: Gaussian centres per class (M). The flow ``"linear"`` and full covariances allow only one.
            Defaults to ``None``: 10 where the centres are trained, else 1.
        flow: Family of the flows: ``"cflow"``, position by position with a position code, as in the paper;
            ``"fastflow"``, convolutions over the feature maps; ``"semantic"``, of the class token of a Vision
            Transformer, for semantic anomalies: its anomaly maps are constant;
            ``"linear"``, only the whitening, fitted in one pass without training; or a family of your own, see
            docs/how-to/add_a_flow.md.
            Defaults to ``"linear"``.
        flow_arguments: Options of the family by name, such as ``{"coupling_blocks": 8}``. Its class documents them:
            :class:`~anomalib_hgad.models.hgad.flows.ConditionalFlow`,
            :class:`~anomalib_hgad.models.hgad.flows.FastFlow`,
            :class:`~anomalib_hgad.models.hgad.flows.SemanticFlow`; docs/explanation/flows.md lists them.
            Defaults to ``None``, the family's own defaults.
        whiten: Whiten the features, as a part of the flow, with statistics of the training images. The paper does not
            whiten them; training is then slower.
            Defaults to ``True``.
        feature_dim: Maximum number of directions that the whitening of a level keeps: those with the largest variance
            in the training images, as in PCA. The density is then defined on their subspace. ``None`` keeps all
            channels.
            Defaults to ``None``.
        covariance: Covariance of the classes: ``"identity"``, as in the paper, or ``"full"``, which is fitted to the
            features of each class. Training of a flow then starts from this fit, and keeps the state, including the
            start, that best detects synthetic anomalies on held-out images.
            Defaults to ``"full"``.
        prior: ``"hierarchical"``; ``"fixed_centers"`` does not train the main class centres; ``"single_gaussian"`` is
            one standard Gaussian for all classes, as in CFLOW-AD.
            Defaults to ``"hierarchical"``.
        loss_weights: Loss weights by name, where they differ from the paper's: ``inter``, the likelihood
            under all classes (lambda_1, Eq. 6), 1; ``mutual_information`` of latent and class (lambda_2, Eq. 8), 100;
            ``entropy`` of the classes (Eq. 9), 1; ``intra``, the likelihood within a class (Eq. 10), 1;
            ``likelihood``, its log-sigmoid (CFLOW-AD's form), 1.
            Defaults to ``None``, the paper's weights.
        position_share: Fraction of the positions of the feature maps used in a training step, drawn again for each
            step and shared by all images. Neighbours are strongly correlated, so a fraction trains faster.
            Flow families other than ``"cflow"`` need complete maps, and use all positions.
            Defaults to ``0.25``.
        lr: Learning rate of Adam.
            Defaults to ``2e-4``.
        training_arguments: Rarely changed training settings, by name: ``weight_decay`` of the flows,
            1e-4 (centres and logits have none); ``warmup``, fraction of the training in which the learning rate rises
            from a tenth, before it falls along a cosine, 0.08; ``first_stage``, fraction of the training with only the
            inter-class losses (Eq. 6, 8 and 9), 0.08, where 0 trains in one stage; ``label_smoothing``, fraction of the
            label spread over all classes in the mutual information, 0.02.
            Defaults to ``None``, these values.
        score: Score of the anomaly maps. ``"log_likelihood"`` and ``"entropy"`` give a map each; ``"sum"`` adds the
            two, and ``"product"`` multiplies them, as in the paper. ``"standardized"`` is how unlikely a position is,
            in standard deviations of normal images. ``"contrast"`` adds to that how unlikely a position is compared
            with the most similar classes; it requires ``covariance="full"``.
            Defaults to ``"contrast"``.
        score_share: Fraction of a map's pixels, the largest ones, whose mean is the score of the image; 0 uses only
            the maximum.
            Defaults to ``0.03``.
        class_source: ``"inferred"`` scores an image without its label; ``"given"`` uses the label where the batch has
            one. The test reports both.
            Defaults to ``"inferred"``.
        calibration_share: Fraction of each class's training images held out of the training, to put the scores of
            all classes on one scale, so that one threshold fits all classes. It applies to
            :class:`~anomalib_hgad.MultiClass` with several classes. 0 uses the training images themselves, whose
            scores are lower than those of unseen normal images; ``None`` leaves each class on its own scale.
            Defaults to ``0.1``.
        feature_cache: Compute the features of the training images once, not in every epoch. They are kept in main
            memory if they need at most half of the free memory, otherwise in float16 files, which later trainings with
            the same images, backbone and pre-processing reuse. A path is the folder of these files; ``True`` uses the
            user's cache folder. Augmentation turns the cache off.
            Defaults to ``True``.
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
        ValueError: If an argument is out of range, or if there is no such backbone, layer, flow or flow option.
        TypeError: If an argument or an option of the flow has the wrong type.
        FileNotFoundError: If the weights file does not exist.
        RuntimeError: If the backbone's weights cannot be downloaded.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_hgad import Hgad, MultiClass
        >>> datamodule = MultiClass(dataset="MVTecAD", root="./datasets/MVTecAD")
        >>> Engine(max_epochs=100).train(Hgad(), datamodule=datamodule)  # doctest: +SKIP
    """

    model: HgadModel
    default_epochs = 100
    default_image_size = (256, 256)

    def __init__(
        self,
        backbone: str = "resnet18",
        levels: dict[str, list[float]] = DEFAULT_LEVELS,
        neighborhood: int = 3,
        image_size: int | tuple[int, int] = 256,
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        num_classes: int | None = None,
        num_centers: int | None = None,
        flow: str = "linear",
        flow_arguments: dict[str, Any] | None = None,
        whiten: bool = True,
        feature_dim: int | None = None,
        prior: PriorKind = "hierarchical",
        covariance: CovarianceKind = "full",
        loss_weights: dict[str, float] | None = None,
        position_share: float = 0.25,
        lr: float = 2e-4,
        training_arguments: dict[str, float] | None = None,
        score: ScoreKind = "contrast",
        score_share: float = 0.03,
        class_source: ScoredClass = "inferred",
        calibration_share: float | None = 0.1,
        feature_cache: bool | str | Path = True,
        seed: int | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        check_types(Hgad.__init__, locals(), left_out=COMPONENTS)
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
        check_range("0 < {} < inf", num_classes=1 if num_classes is None else num_classes, lr=lr)
        check_range("0 < {} <= 1", position_share=position_share)
        self.loss_weights = checked_loss_weights(loss_weights)
        self.training_arguments = checked_training_arguments(training_arguments)
        self.weight_decay = self.training_arguments["weight_decay"]
        check_range("0 <= {} < 1", calibration_share=calibration_share or 0.0)
        check_choice(ScoredClass, class_source=class_source)
        check_choice(PriorKind, prior=prior)
        check_choice(CovarianceKind, covariance=covariance)
        check_choice(ScoreKind, score=score)
        if feature_dim is not None and not whiten:
            msg = f"The whitening reduces the channels: expected whiten=True with feature_dim={feature_dim}."
            raise ValueError(msg)
        self.whiten = whiten
        self.position_share = position_share
        self.lr = lr
        self.class_source = class_source
        self.calibration_share = calibration_share
        self.model = HgadModel(
            backbone=backbone,
            levels=levels,
            neighborhood=neighborhood,
            image_size=size,
            pre_trained=pre_trained,
            backbone_weights=backbone_weights,
            num_classes=num_classes or 1,
            num_centers=num_centers,
            flow=flow,
            flow_arguments=flow_arguments,
            feature_dim=feature_dim,
            prior=prior,
            covariance=covariance,
            score=score,
            score_share=score_share,
        )
        if not self.model.trained:
            self.default_epochs = 1
            self._warn_of_unused(lr, position_share, loss_weights, training_arguments)
        if (not self.model.trained or self.model.refitted) and (not whiten or prior == "fixed_centers"):
            fitted = "covariance='full'" if self.model.refitted else f"flow={flow!r}"
            msg = f"{fitted} is fitted in closed form, both whitening and centres: expected whiten=True and another "
            msg += f"prior than 'fixed_centers', got whiten={whiten} and prior={prior!r}."
            raise ValueError(msg)
        self.training_course: list[StateFigures] = []
        self.fit_added: FitAdded | None = None
        self.classes_joined = False
        self.known_defects: dict[str, KnownDefects] = {}
        self.labels = ClassLabels(num_classes)
        self.training_data = TrainingData()
        self.feature_cache = FeatureCache(feature_cache)

    @staticmethod
    def _warn_of_unused(
        lr: float,
        position_share: float,
        loss_weights: dict[str, float] | None,
        training_arguments: dict[str, float] | None,
    ) -> None:
        given = {
            "lr": lr,
            "position_share": position_share,
            "loss_weights": loss_weights,
            "training_arguments": training_arguments,
        }
        defaults = signature(Hgad).parameters
        if unused := [f"{name}={value}" for name, value in given.items() if value != defaults[name].default]:
            logger.warning("The model has no training steps, so these settings are ignored: %s.", ", ".join(unused))

    @property
    def pixel_limit(self) -> float | None:
        """Limit above which calibrated pixels are marked, if any; see :class:`~anomalib_hgad.NormalPostProcessor`."""
        return None if self.calibration_share is None else PIXEL_LIMIT

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the mixture; none before the first training."""
        return self.labels.names

    @property
    def threshold_names(self) -> list[str]:
        """Names of the thresholds: the classes, or all images if the mixture does not distinguish the classes."""
        return self.class_names if self.model.num_classes == len(self.class_names) else [ALL_IMAGES]

    def set_class_thresholds(
        self, thresholds: torch.Tensor, common: torch.Tensor, images: torch.Tensor, rate: float
    ) -> None:
        """Set a threshold for each class, see :class:`~anomalib_hgad.NormalPostProcessor`.

        Args:
            thresholds: Thresholds in the order of :attr:`threshold_names`, shape (K,).
            common: The common threshold of all classes, scalar.
            images: Number of normal validation images that each threshold was chosen on, shape (K,).
            rate: Fraction of normal images allowed above a threshold.
        """
        self.model.calibration.class_thresholds.update(thresholds, common, images, rate)

    def set_class_names(self, names: Sequence[str]) -> None:
        """Name the classes; a mixture with another number of classes is initialised again.

        Args:
            names: Names of the classes, in the order of ``class_index``. Names that are set outside of a training mark
                the model as trained.
        """
        self.labels.names = list(names)
        self.is_trained |= bool(names) and self.stage != TrainerFn.FITTING
        of_mixture = 1 if self.model.prior_kind == "single_gaussian" else len(names)
        if names and self.model.num_classes != of_mixture:  # there are none before the first training
            self.model.set_num_classes(of_mixture)

    def add_classes(self, datamodule: AnomalibDataModule, accelerator: str = "auto") -> list[AddedClass]:
        """Add classes to the model, from their normal images only, in seconds.

        All other classes keep their scores and labels, bit for bit, for every image that the model assigns to one of
        them. Thresholds do not change.

        Args:
            datamodule: Images of the classes; its training images are used.
            accelerator: Lightning's accelerator.
                Defaults to ``"auto"``.

        Returns:
            A summary of each added class.

        Raises:
            ValueError: If the model was not trained, knows no classes or one of these already, or if an image shows
                a class that it knows.

        Example:
            >>> model = Hgad.load_from_checkpoint("model.ckpt")  # doctest: +SKIP
            >>> model.add_classes(MultiClass(root="./new_products"))  # doctest: +SKIP
        """
        return add_classes(self, datamodule, accelerator)

    def remove_class(self, name: str) -> None:
        """Remove a class from the model; all others keep their scores.

        Args:
            name: Name of the class.

        Raises:
            ValueError: If the model does not know the class, or knows no other one.
        """
        remove_class(self, name)

    @property
    def settings(self) -> dict[str, object]:
        """Settings that scores depend on: those of the network and of the scoring."""
        return super().settings | {
            "model": "Hgad",
            **self.model.settings,
            "whiten": self.whiten,
            "class_source": self.class_source,
            "calibration_share": None if self.calibration_share is None else "a share",
        }

    @property
    def fits_in_one_pass(self) -> bool:
        """Whether the model is fitted in closed form, without training steps."""
        return not self.model.trained

    def name_defects(self, images: Mapping[str, Mapping[str, Sequence[str | Path]]]) -> dict[str, KnownDefects]:
        """Let the model name the kinds of the defects that it finds, from a few known ones; no score changes.

        Earlier kinds of a class are replaced.

        Args:
            images: Files of images with known defects, by class and kind.

        Returns:
            The known defects of these classes.

        Raises:
            ValueError: If the model does not know a class or has no full covariances, or if a class or a kind has no
                images or an unusable name.
            OSError: If an image cannot be read.

        Example:
            >>> model = Hgad.load_from_checkpoint("model.ckpt")  # doctest: +SKIP
            >>> model.name_defects({"bolt": {"crack": ["1.png", "2.png"], "rust": ["3.png"]}})  # doctest: +SKIP
        """
        known = name_defects(self, images)
        self.known_defects |= known
        return known

    def configure_callbacks(self) -> list[Callback]:
        """anomalib's components and this package's callbacks."""
        fit = [ClosedForm(), BestState(), NormalConstants()] if self.fit_added is None else [self.fit_added]
        return [*super().configure_callbacks(), ClassCheck(), *fit, self.training_data]

    def setup(self, stage: str) -> None:
        """Take the classes from the data when training starts, and hold out images for the calibration.

        Args:
            stage: Stage that the trainer starts.

        Raises:
            ValueError: If the number of classes in the data differs from ``num_classes``, if the score needs more
                classes, or if the data lacks a class that the model already knows.
        """
        if stage != TrainerFn.FITTING:
            return
        if not self.model.trained:
            train_for_one_pass(self.trainer)
        datamodule = getattr(self.trainer, "datamodule", None)
        if self.fit_added is not None:
            self.training_data.start(datamodule, 0.0)
            return
        self.known_defects = {}  # they are described by latents, which training changes
        if not self.class_names:
            self.set_class_names(self.labels.names_of(datamodule))
        self.labels.check_complete(datamodule)
        if self.model.num_classes == 1 and self.model.score == "entropy":
            msg = "With one class the entropy of the classes is always 0: expected score='sum', 'product' or "
            msg += "'log_likelihood', got 'entropy'."
            raise ValueError(msg)
        self.labels.record(getattr(datamodule, "train_data", None))
        self.training_data.start(datamodule, self.calibration_share or 0.0)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam with warm-up and cosine per step; without training steps, an optimiser that changes nothing.

        Before that, cached features replace the training images, at the last possible moment. Extraction needs the
        weights of a resumed checkpoint and the model on its device, which Lightning ensures right before it asks for
        the optimiser; and the schedule needs the number of steps, for which the trainer builds the training dataloader.
        """
        self._use_features()
        if self.fit_added is not None:
            return None
        self.classes_joined |= join_classes(self.model)
        if not self.model.trained:
            # Without an optimiser, Lightning uses one without gradients, with which the scaler of 16-mixed fails.
            return SGD([parameter for parameter in self.parameters() if parameter.requires_grad], lr=0)
        optimizer = make_optimizer(
            self.model.flows.parameters(),
            self.model.priors.parameters(),
            self.lr,
            self.weight_decay,
            fused=not self.trainer.gradient_clip_val,
        )
        scheduler = LambdaLR(optimizer, self._course().learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _use_features(self) -> None:
        if self.training_data.has_features:  # Lightning may ask for the optimiser again, as to find a learning rate
            return
        features = self.feature_cache.features(self.trainer, self, self.training_data.held_out)
        if features is not None:
            # A fit in one pass needs them only once. Else they are kept: up to 20 images of each class, in float32.
            if self.calibration_share is not None and not self.fits_in_one_pass:
                batches = patched_batches(self.trainer, self)
                self.training_data.patched = [
                    PatchedBatch([level.cpu() for level in levels], masks.cpu(), class_index.cpu())
                    for levels, masks, class_index in batches
                ]
            self.training_data.use_features(cast("Any", self.trainer).datamodule, *features)

    def _course(self) -> TrainingCourse:
        return TrainingCourse(
            total_steps(self.trainer), self.training_arguments["warmup"], self.training_arguments["first_stage"]
        )

    def features(self, batch: ClassImageBatch | FeatureBatch) -> list[torch.Tensor]:
        """Feature maps of the levels, shapes (B, D, H, W), of a batch of images or of cached features."""
        return batch.features if isinstance(batch, FeatureBatch) else self.model.encoder(batch.image)

    def on_before_batch_transfer(
        self, batch: ImageBatch | FeatureBatch, dataloader_idx: int
    ) -> ClassImageBatch | FeatureBatch:
        """Add the class fields to a batch, with the model's class indices.

        Args:
            batch: Batch in main memory.
            dataloader_idx: Unused.

        Returns:
            The batch.

        Raises:
            ValueError: If the model does not know a class, if a training image has no class, or if an image has NaN or
                infinite values.
        """
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        return self.labels.label(with_class_fields(batch), self.trainer)

    def class_index(self, batch: ClassImageBatch | FeatureBatch) -> torch.Tensor:
        """True classes of a batch; a model of one class assigns all images to it.

        Args:
            batch: Batch of images.

        Returns:
            Class indices, int64, shape (B,).

        Raises:
            ValueError: If the batch has no classes but the model has several.
        """
        if batch.class_index is not None:
            return batch.class_index
        if self.model.num_classes > 1:
            msg = f"The model has the classes {', '.join(self.class_names)}, but the batch has no class_index. "
            msg += "Load the images with anomalib_hgad.MultiClass."
            raise ValueError(msg)
        return torch.zeros(batch.batch_size, dtype=torch.int64, device=self.device)

    def training_step(self, batch: ClassImageBatch | FeatureBatch, batch_idx: int) -> torch.Tensor:
        """Compute the loss of a batch, Eq. 11 summed over the levels; a closed form only accumulates its moments.

        Args:
            batch: Batch of normal images with their classes.
            batch_idx: Number of batches before it.

        Returns:
            The loss.
        """
        class_index = self.class_index(batch)
        if not self.model.trained:
            loader = cast("DataLoader[Any]", self.trainer.train_dataloader)
            # Images that a DistributedSampler repeats, until all processes have as many, count once.
            repeated = are_repeated(loader, batch_idx * (loader.batch_size or 1), batch.batch_size)
            once = batch.batch_size - sum(repeated)
            self.model.add_moments([level[:once] for level in self.features(batch)], class_index[:once])
            # Lightning counts steps by losses, and DDP waits for a gradient of every parameter.
            return (
                0 * torch.stack([parameter.sum() for parameter in self.parameters() if parameter.requires_grad]).sum()
            )
        # All processes draw the same positions, and so does a resumed training.
        generator = torch.Generator().manual_seed(self.global_step)
        losses = self.model.losses(
            self.features(batch),
            class_index,
            self.training_arguments["label_smoothing"],
            self.position_share,
            generator,
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
        """Predict a batch; the same in validation and test.

        Args:
            batch: Batch of images.
            *args: Unused.
            **kwargs: Unused.

        Returns:
            The same batch with predictions.
        """
        del args, kwargs
        predict_batch(
            self.model,
            batch,
            batch.class_index,
            self.class_names,
            self.class_source,
            self.pixel_limit,
            self.known_defects,
        )
        return batch

    test_step = validation_step

    def predict_step(self, batch: ClassImageBatch, *args: Any, **kwargs: Any) -> ClassImageBatch:  # noqa: ANN401
        """Predict a batch, without the maps that only metrics use: they would double the memory of the maps.

        Args:
            batch: Batch of images.
            *args: Unused.
            **kwargs: Unused.

        Returns:
            The same batch with predictions.
        """
        batch = self.validation_step(batch, *args, **kwargs)
        batch.class_inferred_map = batch.class_given_map = None
        return batch

    def on_validation_start(self) -> None:
        """Clear the class thresholds: a validation chooses new ones from unshifted scores."""
        self.model.calibration.class_thresholds.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the class names, and the versions and settings that the checkpoint was made with."""
        super().on_save_checkpoint(checkpoint)
        self.labels.save(checkpoint)
        save_known(self.known_defects, checkpoint)
        checkpoint[ADDED_KEY] = self.model.num_added
        checkpoint[COURSE_KEY] = [figures._asdict() for figures in self.training_course]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the classes.

        Args:
            checkpoint: The checkpoint.

        Raises:
            ValueError: If the checkpoint is of another model or was made with other settings or versions, or if a
                training is resumed on other classes.
        """
        names = self.labels.names_in(checkpoint, resumes=self.stage == TrainerFn.FITTING)
        self.set_class_names(names)
        if not self.has_gone_on_from(checkpoint):
            set_shape(self.model, checkpoint, len(names))
        if self.stage == TrainerFn.FITTING and self.fits_in_one_pass:
            checkpoint.pop("loops", None)
            checkpoint["optimizer_states"] = []
        super().on_load_checkpoint(checkpoint)
        self.training_course = [StateFigures(**figures) for figures in checkpoint.get(COURSE_KEY, [])]
        # A training resumed from a checkpoint changes the latents, and its test reads that checkpoint again.
        self.known_defects = known_in(checkpoint) if self._resumed_step is None else {}

    def description(self) -> dict[str, str]:
        """Return the metadata of an exported model: classes, limits, image size and versions, each in JSON."""
        entries = {
            "class_names": self.class_names,
            "class_tensor": CLASS_TENSOR if self.model.num_classes > 1 else None,
            "novelty_tensor": NOVELTY_TENSOR,
            "novelty_limit": NOVELTY_LIMIT,
        }
        return super().description() | {name: json.dumps(value) for name, value in entries.items()}

    def named_outputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the outputs of an exported model, including inferred class and novelty; see the base class.

        Args:
            images: Images with values from 0 to 1, shape (B, 3, height, width).

        Returns:
            The outputs of the base class; ``novelty``, shape (B,), and, with more than one class,
            ``inferred_class``, int64, shape (B, 1).
        """
        prediction, _ = self.model.predict(images if self.pre_processor is None else self.pre_processor(images))
        outputs = InferenceBatch(pred_score=prediction.pred_score, anomaly_map=prediction.anomaly_map)
        if self.post_processor is not None:
            outputs = self.post_processor(outputs)
        named = {name: value for name, value in outputs._asdict().items() if value is not None}
        named[NOVELTY_TENSOR] = prediction.novelty
        if self.model.num_classes > 1:
            named[CLASS_TENSOR] = prediction.class_posterior.argmax(dim=-1, keepdim=True)
        return named

    @property
    def stored_in_bytes(self) -> tuple[str, ...]:
        """Modules whose weights INT8 exports store as 8-bit integers."""
        return ("model.encoder",) if self.stored_in_half else ("model.encoder", "model.flows")

    @property
    def stored_in_half(self) -> tuple[str, ...]:
        """Modules whose weights they store in half precision."""
        return ("model.flows",) if self.model.feature_flows[0].needs_half_precision else ()

    def _model_for_inference(self, image_size: tuple[int, int] | None) -> HgadModel:
        """Return the model, folded if all images have one size."""
        return self.model if image_size is None else fold(self.model, image_size)

    def _name_tensors(self, graph: Any) -> None:  # noqa: ANN401 - an onnx.ModelProto, see the base
        name_tensors(graph)
