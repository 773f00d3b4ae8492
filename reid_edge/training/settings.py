"""What one training run is: every value that decides its result, typed, with the paper's from-scratch values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from reid_edge.osnet.architecture import BASE_SIZE, NetworkVariant

RecipeName = Literal["scratch", "finetune", "cross-domain", "mutual", "classify", "attributes"]
#: What the network learns to tell: identities (re-ID), categories (one of many), attributes (any of many).
Task = Literal["identity", "category", "attributes"]

Probability = Annotated[float, Meta(ge=0, le=1)]
#: Bounded by single precision, in which ``inf`` brings no run to anything.
NotNegative = Annotated[float, Meta(ge=0, le=1e38)]
Positive = Annotated[float, Meta(gt=0, le=1e38)]
Count = Annotated[int, Meta(ge=1)]
CountOrNone = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is learned from.

    Attributes:
        dataset: Name of a dataset (``reid_edge.datasets``); several joined by ``+``, or ``mix4``.
        root: Folder that holds it; of a union, the folder that holds each in a folder of its own.
        validation: Last identities of the train split that are held out as query and gallery (the test split is for
            final judging only); for categories and attributes, the number of images (of PA-100K any number means
            its own validation split).  0: none.
        identities: Train on the first so many identities only (after holding out); None: all.
        split: Which of VIPeR's and GRID's ten random splits.
        partial: A subset: counts are not checked.
        memory_gb: Images are held in memory as uint8 if they fit in this, else decoded batch by batch.
    """

    dataset: str = "market1501"
    root: Path = Path()
    validation: CountOrNone = 100
    identities: Count | None = None
    split: Annotated[int, Meta(ge=0, le=9)] = 0
    partial: bool = False
    memory_gb: Annotated[float, Meta(gt=0, le=1e6)] = 8.0


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is trained.

    Attributes:
        width: β.
        size: Input height and width, pixels.
        variant: How it differs from the paper's primary model.
        start: Checkpoint whose weights it starts from; None: random weights.
        statistics: Whose pixel mean and standard deviation normalise the input (supplement B, Table 12a).  With
            ``start``, the checkpoint's own are used where this is ``imagenet``.
    """

    width: Annotated[float, Meta(gt=0, le=1.5)] = 1.0
    size: tuple[int, int] = BASE_SIZE
    variant: NetworkVariant = field(default_factory=NetworkVariant)
    start: Path | None = None
    statistics: Literal["imagenet", "dataset"] = "imagenet"


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """Random changes of a training image; each is off at 0.

    Attributes:
        flip: Probability of mirroring.
        translate: Probability of random translation crop: enlarged to 9/8, then a crop of the input's size.
        shift: Pixels that the image is moved by at most, each way, over black (CIFAR: 4).
        crop: Crop of the input's size at a random place of an image 256/224 as large (ImageNet); held-out images are
            cropped in the middle.
        patch: Probability of random patch: a piece of another image pasted in.
        erase: Probability of random erasing: a rectangle replaced by the mean colour.
        brightness: Factor 1 ± this, at random.
        contrast: Likewise.
        saturation: Likewise.
        hue: Turn of the hue circle, ± this part of it.
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
    """What is minimised: cross-entropy + triplet × triplet loss − entropy × entropy + mutual × divergence.

    Attributes:
        smoothing: Label smoothing of the cross-entropy.
        triplet: Weight of the triplet loss with hard mining (λt); needs ``batch.instances``.
        triplet_margin: Margin; None: soft margin, log(1 + exp(d⁺ − d⁻)).
        triplet_normalised: On features of unit length, which the paper does not ask for.  On features as they are, a
            weight of 0.5 from random weights drives them all to zero, with either margin (docs/training.md).
        triplet_start: First epoch with triplet loss.
        entropy: Weight of the entropy of the predictions (λe), which is maximised.
        mutual: Weight of deep mutual learning; above 0 two networks are trained.
    """

    smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    triplet: NotNegative = 0.0
    triplet_margin: Positive | None = 0.3
    triplet_normalised: bool = True
    triplet_start: CountOrNone = 0
    entropy: NotNegative = 0.0
    mutual: NotNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """What changes the weights.

    Attributes:
        name: SGD with momentum, or Adam, or Adam's AMSGrad form.
        learning_rate: The schedule's highest.
        momentum: Of SGD.
        nesterov: Nesterov's form of the momentum.
        weight_decay: L2, of every weight.
    """

    name: Literal["sgd", "adam", "amsgrad"] = "sgd"
    learning_rate: Positive = 0.065
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 5e-4


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """How the learning rate goes.

    Attributes:
        epochs: In all.
        kind: ``step``: times ``gamma`` at each milestone; ``cosine``: down to 0 along half a cosine.
        milestones: Epochs.
        gamma: See ``kind``.
        warmup: First epochs in which the rate rises linearly, step by step, from a hundredth.
        frozen: First epochs in which only the classifier trains; they count towards ``epochs``.
    """

    epochs: Count = 350
    kind: Literal["step", "cosine"] = "step"
    milestones: tuple[Count, ...] = (150, 225, 300)
    gamma: Positive = 0.1
    warmup: CountOrNone = 0
    frozen: CountOrNone = 0


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How images are drawn.

    Attributes:
        size: Images of a step, over all processes.
        instances: Images of one identity in a batch (identity-balanced sampler); None: plain shuffling.
    """

    size: Annotated[int, Meta(ge=2)] = 64
    instances: Annotated[int, Meta(ge=2)] | None = None


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How it is run.

    Attributes:
        seed: Of everything that is random.
        device: ``auto``: a GPU where there is one.
        precision: Of the forward pass: ``auto``: bfloat16 on a GPU, float32 on a CPU.
        graph: Capture a step as one CUDA graph; ``auto``: on one GPU.
        ema: Decay, per step, of an exponential moving average of the weights, which then is what is evaluated and
            kept; 0: none.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated.  0: only the last.
        save_minutes: Between saves of the run's state, which is also saved at each evaluation and at the end.
        collapse_spread: The run stops when the features' spread (``training.losses``) stays under this; 0: never.
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
    """A training run, resolved: nothing is left to defaults of code."""

    recipe: RecipeName
    task: Task = "identity"
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @property
    def networks(self) -> int:
        """Networks that learn side by side."""
        return 2 if self.loss.mutual else 1
