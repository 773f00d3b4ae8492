import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.errors import ConfigError
from reid_edge.osnet.architecture import (
    NetworkVariant,
    OSNetConfig,
    format_size,
    parse_size,
    scaled_channels,
    size_of_resolution,
    width_of_channels,
)


@pytest.mark.parametrize(
    ("width", "channels"),
    [(1.0, (64, 256, 384, 512)), (0.75, (48, 192, 288, 384)), (0.25, (16, 64, 96, 128)), (1.5, (96, 384, 576, 768))],
)
def test_channels_scale_with_the_width(width, channels):
    assert OSNetConfig(width=width).channels == channels


@given(st.integers(2, 150).map(lambda percent: percent / 100))
def test_every_two_digit_width_is_found_again_from_its_channels(width):
    assert width_of_channels(scaled_channels(width)) == width


@given(st.floats(0.02, 1.5))
def test_the_width_found_gives_the_same_channels(width):
    channels = scaled_channels(width)
    assert scaled_channels(width_of_channels(channels)) == channels


def test_channels_of_no_width_are_refused():
    with pytest.raises(ConfigError, match="no width multiplier gives"):
        width_of_channels((16, 64, 96, 512))


@pytest.mark.parametrize("width", [0, -0.25, 1.51, float("nan")])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(ConfigError, match=r"width must be in \(0, 1.5\]"):
        OSNetConfig(width=width)


@pytest.mark.parametrize(
    ("resolution", "size"), [(1, (256, 128)), (0.75, (192, 96)), (0.5, (128, 64)), (0.25, (64, 32)), (1.25, (320, 160))]
)
def test_resolution_scales_256x128(resolution, size):
    assert size_of_resolution(resolution) == size


def test_a_resolution_without_whole_pixels_names_the_nearest_size():
    with pytest.raises(ConfigError, match="--size 77x38"):
        size_of_resolution(0.3)


def test_a_size_too_small_for_the_network_is_refused():
    OSNetConfig(size=(13, 13))
    with pytest.raises(ConfigError, match="too small"):
        OSNetConfig(size=(64, 12))


def test_sizes_are_read_and_written_height_first():
    assert parse_size("256x128") == (256, 128)
    assert format_size((256, 128)) == "256x128"
    with pytest.raises(ConfigError, match="HEIGHTxWIDTH"):
        parse_size("256")


def test_a_variant_says_how_it_differs():
    assert str(NetworkVariant()) == ""
    assert str(NetworkVariant(fusion="addition", instance_norm=True)) == "fusion=addition, instance_norm=True"
