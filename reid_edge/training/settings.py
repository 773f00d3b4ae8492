"""Settings of a training run: every value that decides its result, with the paper's from-scratch values as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from reid_edge.osnet.architecture import BASE_SIZE, NetworkVariant
from reid_edge.types import Size

RecipeName = Literal["scratch", "finetune", "cross-domain", "mutual", "classify", "attributes"]
#: What the classifier learns: identities (re-ID), categories (one an image), attributes (any number an image).
Task = Literal["identity", "category", "attributes"]

Probability = Annotated[float, Meta(ge=0, le=1)]
#: Bounded by the range of single precision.
NotNegative = Annotated[float, Meta(ge=0, le=1e38)]
Positive = Annotated[float, Meta(gt=0, le=1e38)]
Count = Annotated[int, Meta(ge=1)]
CountOrNone = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Training and held-out images.

    Attributes:
        dataset: Name of a dataset (docs/datasets.md), several joined by ``+``, or ``mix4``.
        root: Folder of the dataset. For a union: the folder that holds each dataset in a folder of its name.
        validation: Number of identities held out of the train split as query and gallery (the last ones; the test split
            is for the final evaluation only). For categories and attributes, the number of images (for PA-100K any
            number means its own validation split). 0: none.
        identities: Number of identities to train on, the first ones after holding out. Default: all.
        split: Number of the random split of VIPeR and GRID (0 to 9) or of CUHK03 of 2014 (0 to 19).
        combineall: Also train on query and gallery, without junk and distractors, like torchreid's combineall. For
            searches in other datasets, since the model has seen the test people.
        partial: Accept a subset: do not check the number of images.
        skip_bad: Skip images that cannot be read, and log how many. All are decoded once more to find them.
        memory_gb: Images are kept in memory as uint8 if they need at most this many GB; else each batch is decoded
            anew.
    """

    dataset: str = "market1501"
    root: Path = Path()
    validation: CountOrNone = 100
    identities: Count | None = None
    split: Annotated[int, Meta(ge=0, le=19)] = 0
    combineall: bool = False
    partial: bool = False
    skip_bad: bool = False
    memory_gb: Annotated[float, Meta(gt=0, le=1e6)] = 8.0


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network.

    Attributes:
        width: Width multiplier β.
        size: Input height and width, pixels.
        variant: Differences from the paper's primary model.
        start: Checkpoint with the weights to start from. Default: random weights.
        neck: Batch norm between the feature and the classifier, which then has no bias of its own (BNNeck; Luo et al.,
            2019). Checkpoints of people hold the feature before it.
        statistics: Source of the pixel mean and standard deviation that normalise the input (supplement B, Table 12a).
            With ``start``, ``imagenet`` means the checkpoint's own.
    """

    width: Annotated[float, Meta(gt=0, le=1.5)] = 1.0
    size: Size = BASE_SIZE
    variant: NetworkVariant = field(default_factory=NetworkVariant)
    start: Path | None = None
    neck: bool = False
    statistics: Literal["imagenet", "dataset"] = "imagenet"


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """Random changes of a training image; each is off at 0.

    Attributes:
        flip: Probability of mirroring.
        translate: Probability of random translation crop: the image is enlarged to 9/8, and a crop of the input's size
            is taken.
        shift: Largest shift in each direction, pixels, over black (CIFAR: 4).
        crop: Take a crop of the input's size at a random place of an image 256/224 as large (ImageNet). Held-out images
            are cropped in the middle.
        patch: Probability of random patch: a piece of another image is pasted in.
        erase: Probability of random erasing: a rectangle is replaced by the mean colour.
        brightness: Largest change of brightness: a random factor 1 ± this.
        contrast: Largest change of contrast: a random factor 1 ± this.
        saturation: Largest change of saturation: a random factor 1 ± this.
        hue: Largest rotation of the hue circle, ± this part of it.
    """

    flip: Probability = 0.5
    translate: Probability = 0.5
    shift: CountOrNone = 0
    crop: bool = False
    patch: Probability = 0.5
    erase: Probability = 0.0
    brightness: Probability = 0.0
    contrast: Probability = 0.0
    saturation: Probability = 0.0
    hue: Annotated[float, Meta(ge=0, le=0.5)] = 0.0


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """The loss: cross_entropy × cross-entropy + triplet × triplet loss − entropy × entropy + mutual × divergence.

    Attributes:
        cross_entropy: Weight of the cross-entropy, which learns from labels. 0: teachers alone teach, and labels may be
            any.
        smoothing: Label smoothing of the cross-entropy.
        triplet: Weight of the triplet loss with hard mining (λt); needs ``batch.instances``.
        triplet_margin: Margin of the triplet loss. ``none``: soft margin, log(1 + exp(d⁺ − d⁻)).
        triplet_normalised: Scale features to unit length for the triplet loss, which the paper does not ask for.
            Without it, a weight of 0.5 from random weights drives all features to zero, with either margin
            (docs/training.md).
        triplet_start: First epoch with triplet loss, counted from 0.
        entropy: Weight of the entropy of the predictions (λe), which is maximised.
        mutual: Weight of deep mutual learning. Above 0, two networks are trained.
        attribute_weights: Weights of attributes, of which a share p of the training images has each. ``rate``: exp(−p)
            (the authors' project); ``value``: exp(1 − p) where it is present, exp(p) where it is absent (DeepMAR);
            ``equal``: 1.
    """

    cross_entropy: NotNegative = 1.0
    smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    triplet: NotNegative = 0.0
    triplet_margin: Positive | None = 0.3
    triplet_normalised: bool = True
    triplet_start: CountOrNone = 0
    entropy: NotNegative = 0.0
    mutual: NotNegative = 0.0
    attribute_weights: Literal["rate", "value", "equal"] = "value"


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Frozen teachers, from which the network learns besides the labels.

    Attributes:
        teachers: Checkpoints of any width, size and variant of OSNet, folders of finished runs, or features that any
            network has computed of the training images (``.npy``, as ``reid-edge extract`` writes them). Default: none.
        feature: Weight of 1 − cosine between each teacher's feature and a linear projection of the network's to the
            same length, which is learnt beside it and is no part of the checkpoint.
        relations: Weight of the mean squared difference between the cosines of all pairs of a batch and those of the
            teachers.
        logits: Weight of the divergence from the teachers' predictions; needs folders of runs on the same images.
        temperature: Temperature of the predictions that are compared.
        view: Images that the teachers see. ``clean``: each training image and its mirror image at the teacher's own
            size, once, before the first step; ``same``: what the network sees, augmented, in each step.
    """

    teachers: tuple[Path, ...] = ()
    feature: NotNegative = 20.0
    relations: NotNegative = 0.0
    logits: NotNegative = 0.0
    temperature: Positive = 4.0
    view: Literal["clean", "same"] = "clean"


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """The optimiser.

    Attributes:
        name: SGD with momentum, Adam, or Adam's AMSGrad form.
        learning_rate: Highest learning rate of the schedule.
        momentum: Momentum of SGD.
        nesterov: Use Nesterov's form of the momentum.
        weight_decay: L2 regularisation of every weight.
    """

    name: Literal["sgd", "adam", "amsgrad"] = "sgd"
    learning_rate: Positive = 0.065
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 5e-4


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Length of the run, and course of the learning rate.

    Attributes:
        epochs: Total number of epochs.
        kind: ``step``: multiply the rate by ``gamma`` at each milestone; ``cosine``: lower it to 0 along half a cosine.
        milestones: Epochs at which the rate falls, for ``step``.
        gamma: Factor at each milestone, for ``step``.
        warmup: Number of first epochs in which the rate rises linearly, step by step, from a hundredth of it.
        frozen: Number of first epochs in which only the classifier trains; they count towards ``epochs``.
        balanced_start: First epoch with identity-balanced batches (``batch.instances``), counted from 0. Default: the
            first one with triplet loss, without which they cost accuracy.
        sizes: Input sizes, HEIGHTxWIDTH, in the order in which they are trained at; the last one is ``model.size``.
            Small images cost little, and most can be learned from them. Held-out images are always evaluated at
            ``model.size``. Default: that size throughout.
        size_milestones: Epochs at which the next one of ``sizes`` begins.
    """

    epochs: Count = 350
    kind: Literal["step", "cosine"] = "step"
    milestones: tuple[Count, ...] = (150, 225, 300)
    gamma: Positive = 0.1
    warmup: CountOrNone = 0
    frozen: CountOrNone = 0
    balanced_start: CountOrNone | None = None
    sizes: tuple[Size, ...] = ()
    size_milestones: tuple[Count, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """The batch of a step.

    Attributes:
        size: Number of images in a step, over all processes.
        instances: Number of images of each identity in a batch (identity-balanced sampler, for the triplet loss). 1:
            plain shuffling, also with triplet loss. Default: plain shuffling.
    """

    size: Annotated[int, Meta(ge=2)] = 64
    instances: Count | None = None


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Device, precision, evaluation and saves.

    Attributes:
        seed: Random seed.
        device: Device to train on. ``auto``: a GPU if there is one.
        precision: Precision of the forward pass. ``auto``: bfloat16 on a GPU and on CPUs with
            AVX512-BF16 or AMX, float32 on others.
        graph: Capture a step as one CUDA graph. ``auto``: on one GPU.
        ema: Decay per step of an exponential moving average of the weights, which is then evaluated and saved; in the
            first n steps of each input size at most (1 + n) / (10 + n). 0: none.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated. 0: only the last.
        save_minutes: Minutes between saves of the run's state. It is also saved at each evaluation and at the end.
        collapse_spread: The run stops if the spread of the features stays below this value. 0: never.
    """

    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    graph: Literal["auto", "on", "off"] = "auto"
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    evaluate_every: CountOrNone = 10
    save_minutes: Positive = 5.0
    collapse_spread: NotNegative = 0.05


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """All settings of a run, resolved: nothing is left to defaults of the code."""

    recipe: RecipeName
    task: Task = "identity"
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @property
    def networks(self) -> int:
        """Number of networks that learn side by side."""
        return 2 if self.loss.mutual else 1

    @property
    def balanced_start(self) -> int | None:
        """First epoch with identity-balanced batches; None: all batches are shuffled."""
        if self.batch.instances in (None, 1):
            return None
        return self.loss.triplet_start if self.schedule.balanced_start is None else self.schedule.balanced_start
