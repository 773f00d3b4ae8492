"""Architecture of an OSNet: width, input size, variant, and the channel counts that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Literal, get_args

from reid_edge.errors import ConfigError
from reid_edge.types import Size

#: Channels of conv1, conv2, conv3 and conv4/conv5 at width 1 (paper, Table 1).
BASE_CHANNELS = (64, 256, 384, 512)
#: Height and width of the input at resolution 1 (paper, Table 1).
BASE_SIZE = (256, 128)
MAX_WIDTH = 1.5
#: Rows or columns before conv2 that the two 2x2 pools reduce to one.
MIN_SIDE = 4
#: Rows or columns that they reduce to two.  OSNet-AIN's instance norm in conv4 needs more than one place.
MIN_LONG_SIDE_OF_AIN = 8
MAX_SIDE = 4096

#: Bottlenecks of OSNet-AIN with an instance norm, by stage (0: conv2) and number in it: the paper's search found them.
AIN_BLOCKS = frozenset({(0, 0), (0, 1), (1, 1), (2, 0)})

Convolution = Literal["lite", "standard"]
Fusion = Literal["unified", "separate", "streamwise", "fixed", "addition", "concatenation"]
Pooling = Literal["average", "maximum"]
#: Fusions whose weights depend on the input.
GATED: tuple[Fusion, ...] = ("unified", "separate", "streamwise")


@dataclass(frozen=True, kw_only=True)
class NetworkVariant:
    """Differences of a network from the paper's primary model (section 4.1, Table 5; section 4.3; supplement A).

    Attributes:
        streams: 3x3 layers of each stream of a bottleneck, ascending; T is their number.  ``(4, 4, 4, 4)`` are four
            streams of the same depth (the paper does not say which depth its model 3 has).
        convolution: ``lite``: pointwise, then depthwise; ``standard``: dense 3x3 (model 2).
        fusion: How streams become one: ``unified``: one channel-wise gate shared by all; ``separate``: a gate each
            (model 6); ``streamwise``: shared, one number a stream (model 7); ``fixed``: channel-wise weights that are
            learned and then the same for every input (model 8); ``addition`` (model 5); ``concatenation`` (model 4).
        blocks: Bottlenecks of conv2, conv3 and conv4; (3, 8, 6) is Table 8's deeper network.
        instance_norm: OSNet-IBN: instance norm after conv1 in place of its batch norm, and after the residual sum of
            every bottleneck of conv2.
        ain: OSNet-AIN (Zhou et al., TPAMI 2021): instance norm after conv1 in place of its batch norm, and in
            conv2.0, conv2.1, conv3.1 and conv4.0 in place of the restoring convolution's, before the residual sum.
        stem_stride: Stride of conv1, 1 or 2.  With 1, and without the pool after it, images of 32x32 keep 8x8 places in
            conv5, where the primary model leaves 2x2 (the paper does not say what its networks for CIFAR have).
        stem_pool: Max pool, 3x3 with stride 2, after conv1.
        pooling: How conv5's places become one: their ``average`` or ``maximum``.

    Raises:
        ConfigError: A convolution, fusion or pooling of no such name; another stride; streams that are none, empty or
            not ascending; a stage without bottlenecks; OSNet-AIN with other numbers of bottlenecks, or together with
            OSNet-IBN.
    """

    streams: tuple[int, ...] = (1, 2, 3, 4)
    convolution: Convolution = "lite"
    fusion: Fusion = "unified"
    blocks: tuple[int, int, int] = (2, 2, 2)
    instance_norm: bool = False
    ain: bool = False
    stem_stride: Literal[1, 2] = 2
    stem_pool: bool = True
    pooling: Pooling = "average"

    def __post_init__(self) -> None:
        _require_word("convolution", self.convolution, get_args(Convolution))
        _require_word("fusion", self.fusion, get_args(Fusion))
        _require_word("pooling", self.pooling, get_args(Pooling))
        if self.stem_stride not in (1, 2):
            raise ConfigError(f"stem_stride must be 1 or 2, got {self.stem_stride}.")
        if not self.streams or min(self.streams) < 1 or list(self.streams) != sorted(self.streams):
            raise ConfigError(
                f"streams must be ascending numbers of layers, each at least 1, e.g. (1, 2, 3, 4), got {self.streams}."
            )
        if len(self.blocks) != 3 or min(self.blocks) < 1:
            raise ConfigError(f"blocks must be three numbers, each at least 1, e.g. (2, 2, 2), got {self.blocks}.")
        if self.ain and self.instance_norm:
            raise ConfigError("a network is OSNet-AIN (ain) or OSNet-IBN (instance_norm), not both; turn one off.")
        if self.ain and tuple(self.blocks) != (2, 2, 2):
            raise ConfigError(f"OSNet-AIN (ain) has blocks (2, 2, 2), got {self.blocks}.")

    def has_inner_norm(self, stage: int, number: int) -> bool:
        """Return True if a bottleneck, by stage (0: conv2) and number, normalises its residual by instance norm."""
        return self.ain and (stage, number) in AIN_BLOCKS

    @property
    def stem_reduction(self) -> int:
        """Rows or columns of the input to one before conv2: 4 in the primary model."""
        return self.stem_stride * (2 if self.stem_pool else 1)

    def with_pools_of(self, other: NetworkVariant) -> NetworkVariant:
        """Return this variant with the other's stride and pools, which have no weights."""
        return replace(self, stem_stride=other.stem_stride, stem_pool=other.stem_pool, pooling=other.pooling)

    def __str__(self) -> str:
        """List what differs from the primary model, e.g. ``fusion=addition``; "" for that model itself."""
        changed = (one.name for one in fields(self) if getattr(self, one.name) != one.default)
        return ", ".join(f"{name}={getattr(self, name)}" for name in changed)


def _require_word(name: str, word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        raise ConfigError(f"{name} must be one of {', '.join(words)}, got '{word}'.")


@dataclass(frozen=True)
class OSNetConfig:
    """One network of the family.

    Attributes:
        width: β, the multiplier of every stage's channels, in (0, 1.5].
        size: Input height and width in pixels, each at least 13; for OSNet-AIN, one of them at least 29.  Other strides
            and pools of the stem take less.
        feature_dim: Length of the feature, 512 at every width.
        variant: How it differs from the paper's primary model.

    Raises:
        ConfigError: A width or size outside those ranges.
    """

    width: float = 1.0
    size: Size = BASE_SIZE
    feature_dim: int = 512
    variant: NetworkVariant = NetworkVariant()

    def __post_init__(self) -> None:
        if not 0 < self.width <= MAX_WIDTH:
            raise ConfigError(f"width must be in (0, {MAX_WIDTH}], got {self.width}.")
        if min(scaled_channels(self.width)) < 1:
            raise ConfigError(f"width {self.width} leaves a stage without channels; use at least 0.01.")
        if max(self.size) > MAX_SIDE:
            raise ConfigError(f"size {format_size(self.size)} is too large: at most {MAX_SIDE} pixels a side.")
        reduction = self.variant.stem_reduction
        shortest, long_of_ain = (reduction * (side - 1) + 1 for side in (MIN_SIDE, MIN_LONG_SIDE_OF_AIN))
        if min(self.size) < shortest:
            raise ConfigError(
                f"size {format_size(self.size)} is too small for the network: height and width must each be "
                f"at least {shortest} pixels, or the last stage has none left."
            )
        if self.variant.ain and max(self.size) < long_of_ain:
            raise ConfigError(
                f"size {format_size(self.size)} is too small for OSNet-AIN: height or width must be at least "
                f"{long_of_ain} pixels, or one place is left in conv4, where it normalises over places."
            )

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of conv1, conv2, conv3 and conv4/conv5."""
        return scaled_channels(self.width)


def scaled_channels(width: float) -> tuple[int, ...]:
    """Channels of the four stages at a width, each rounded half up."""
    return tuple(int(base * width + 0.5) for base in BASE_CHANNELS)


def width_of_channels(channels: tuple[int, ...]) -> float:
    """The shortest decimal width that gives exactly these channels.

    Raises:
        ConfigError: No single width gives them all.
    """
    low = max(Fraction(2 * count - 1, 2 * base) for count, base in zip(channels, BASE_CHANNELS, strict=True))
    high = min(Fraction(2 * count + 1, 2 * base) for count, base in zip(channels, BASE_CHANNELS, strict=True))
    for digits in range(5):
        scale = 10**digits
        for numerator in range(int(low * scale), int(high * scale) + 1):
            if low <= Fraction(numerator, scale) < high:
                return float(numerator / scale)
    raise ConfigError(f"no width multiplier gives the channels {channels}; at width 1 they are {BASE_CHANNELS}.")


def size_of_resolution(resolution: float) -> Size:
    """Input height and width of a resolution multiplier γ.

    Raises:
        ConfigError: γ does not give whole pixels.
    """
    if not 0 < resolution <= 4:
        raise ConfigError(f"resolution must be in (0, 4], got {resolution}.")
    exact = tuple(side * resolution for side in BASE_SIZE)
    size = (round(exact[0]), round(exact[1]))
    if any(abs(side - whole) > 1e-6 for side, whole in zip(exact, size, strict=True)):
        raise ConfigError(
            f"resolution {resolution} gives {exact[0]:g}x{exact[1]:g} pixels, which are not whole; "
            f"use --size {format_size(size)} instead."
        )
    return size


def parse_size(text: str) -> Size:
    """Height and width from ``HxW``, e.g. ``256x128``.

    Raises:
        ConfigError: Not two whole numbers joined by an x.
    """
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise ConfigError(f"size must be HEIGHTxWIDTH in pixels, e.g. 256x128, got '{text}'.")
    return int(height), int(width)


def format_size(size: Size) -> str:
    """``HxW``, the inverse of :func:`parse_size`."""
    return f"{size[0]}x{size[1]}"
