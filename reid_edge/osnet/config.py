"""What one OSNet is: width, input size, and the channel counts that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from reid_edge.errors import ConfigError

#: Channels of conv1, conv2, conv3 and conv4/conv5 at width 1 (paper, Table 1).
BASE_CHANNELS = (64, 256, 384, 512)
#: Height and width of the input at resolution 1 (paper, Table 1).
BASE_SIZE = (256, 128)
MAX_WIDTH = 1.5
#: Rows or columns that the two stride-2 layers and the two 2x2 pools reduce to one.
MIN_SIDE = 13
MAX_SIDE = 4096


@dataclass(frozen=True)
class OSNetConfig:
    """One network of the family.

    Attributes:
        width: β, the multiplier of every stage's channels, in (0, 1.5].
        size: Input height and width in pixels, each at least 13.
        feature_dim: Length of the feature, 512 at every width.

    Raises:
        ConfigError: A width or size outside those ranges.
    """

    width: float = 1.0
    size: tuple[int, int] = BASE_SIZE
    feature_dim: int = 512

    def __post_init__(self) -> None:
        if not 0 < self.width <= MAX_WIDTH:
            raise ConfigError(f"width must be in (0, {MAX_WIDTH}], got {self.width}.")
        if min(scaled_channels(self.width)) < 1:
            raise ConfigError(f"width {self.width} leaves a stage without channels; use at least 0.01.")
        if max(self.size) > MAX_SIDE:
            raise ConfigError(f"size {format_size(self.size)} is too large: at most {MAX_SIDE} pixels a side.")
        if min(self.size) < MIN_SIDE:
            raise ConfigError(
                f"size {format_size(self.size)} is too small for the network: height and width must each be "
                f"at least {MIN_SIDE} pixels, or the last stage has none left."
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


def size_of_resolution(resolution: float) -> tuple[int, int]:
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


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from ``HxW``, e.g. ``256x128``.

    Raises:
        ConfigError: Not two whole numbers joined by an x.
    """
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise ConfigError(f"size must be HEIGHTxWIDTH in pixels, e.g. 256x128, got '{text}'.")
    return int(height), int(width)


def format_size(size: tuple[int, int]) -> str:
    """``HxW``, the inverse of :func:`parse_size`."""
    return f"{size[0]}x{size[1]}"
