import pytest

from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.osnet.rewrites import BlockRewrite
from reid_edge.tune.forms import kept_float, make_form, node_pattern, parts, place_of, places
from reid_edge.tune.profile import Profile, summed
from reid_edge.tune.search import mixtures, probes

CONFIG = OSNetConfig(width=0.25)


def times(probe, **cheaper):
    """Every place costs 1 ms in every probe, but for those named."""
    return {place: cheaper.get(place.replace(".", "_"), 1.0) for place in places(CONFIG)}


def by_name(int8=True):
    return {probe.name: probe for probe in probes(CONFIG, int8=int8)}


def test_probes_cover_every_rewrite_in_float_and_int8_and_begin_with_the_plain_ones():
    names = [probe.name for probe in probes(CONFIG, int8=True)]
    assert names[:3] == ["plain float", "plain int8", "plain int8 ends"]
    assert {"collapse int8", "merge+collapse float", "join int8", "merge int8 ends"} <= set(names)
    assert not any("int8" in name for name in by_name(int8=False))


def test_a_probe_leaves_out_blocks_where_its_rewrite_is_not_legal():
    join = by_name()["join float"]
    assert [block for block, _ in join.form.blocks] == ["conv2.0", "conv3.0", "conv4.0"]  # only these project
    assert "conv2.1" not in join.options


def test_int8_ends_leaves_the_streams_in_float():
    form = by_name()["plain int8 ends"].form
    assert "conv2.0 ends" in form.int8
    assert not any("streams" in part for part in form.int8)
    patterns = kept_float(form, CONFIG)
    assert node_pattern("conv2.0 streams") in patterns
    assert node_pattern("conv2.0 ends") not in patterns


def test_the_best_option_of_each_place_is_put_together():
    probe = by_name()
    measured = [
        (probe["plain float"], times(probe)),
        (probe["plain int8"], times(probe, conv1=0.5, conv3_0=0.9)),
        (probe["collapse int8"], times(probe, conv3_0=0.4)),
    ]
    forms = dict(mixtures(CONFIG, measured, most=9))
    best = forms["best of each block"]
    assert dict(best.blocks) == {"conv3.0": BlockRewrite(collapse=True)}
    assert {"conv1", "conv3.0 ends", "conv3.0 streams"} <= best.int8


def test_a_block_is_not_exchanged_for_less_than_it_is_worth():
    probe = by_name()
    measured = [
        (probe["plain int8"], times(probe)),
        (probe["collapse int8"], times(probe, conv3_0=0.98, conv4_0=0.5) | {"conv2.0": 9.0}),
        (probe["plain float"], times(probe) | {"conv2.0": 9.0}),
    ]
    forms = dict(mixtures(CONFIG, measured, most=9))
    exchanged = forms["best form, blocks exchanged"]
    assert dict(exchanged.blocks) == {"conv4.0": BlockRewrite(collapse=True)}
    assert "conv2.0 streams" in exchanged.int8


def test_a_form_in_float_is_always_among_them():
    probe = by_name()
    measured = [
        (probe["plain float"], times(probe) | {"conv2.0": 9.0}),
        (probe["merge float"], times(probe, conv2_1=0.1) | {"conv2.0": 9.0}),
        (probe["plain int8"], times(probe)),
    ]
    best = dict(mixtures(CONFIG, measured, most=3))["best in float"]
    assert not best.int8
    assert dict(best.blocks) == {"conv2.1": BlockRewrite(merge=True)}


def test_forms_are_the_same_whatever_order_they_are_written_in():
    merge, collapse = BlockRewrite(merge=True), BlockRewrite(collapse=True)
    one = make_form({"conv2.0": merge, "conv4.1": collapse}, int8=["fc", "conv1"], config=CONFIG)
    other = make_form(
        {"conv4.1": collapse, "conv3.0": BlockRewrite(), "conv2.0": merge}, int8=["conv1", "fc"], config=CONFIG
    )
    assert one == other
    assert one.key == other.key
    assert one.key != make_form({"conv2.0": merge}, config=CONFIG).key


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ("conv2.0.streams.1.1.depthwise/Conv_21/WithoutBiases", "conv2.0"),
        ("/Sub_2_abcd_acdb_conv1.conv/Conv_3/WithoutBiases", "conv1"),
        ("conv3.1/Add_255/fq_output_0", "conv3.1"),
        ("transition2.conv/Conv_131", "transition2"),
        ("fc/Gemm_390", "fc"),
        ("network/MaxPool_5", ""),
        ("VariadicSplit_7998", ""),
        ("conv2.0.gate.fc1/Conv_9", "conv2.0"),
    ],
)
def test_nodes_are_found_again_in_an_engines_profile(node, place):
    assert place_of(node) == place


def test_a_nameless_layer_counts_for_the_place_before_it_and_pools_for_none():
    layers = [
        ("conv2.0.streams.levels.0/Conv_1", "Convolution", 1.0),
        ("VariadicSplit_7", "Split", 0.5),
        ("network/MaxPool_5", "Pooling", 0.25),
        ("conv5.conv/Conv_2_reorder", "Reorder", 0.125),
    ]
    profile = summed(layers)
    assert profile.places == {"conv2.0": 1.5, "elsewhere": 0.25, "conv5": 0.125}
    assert profile.reorders == 0.125
    assert profile.total == 1.875


def test_the_least_of_two_passes_is_kept_place_by_place():
    one = Profile(places={"conv1": 2.0, "fc": 1.0}, reorders=0.5)
    other = Profile(places={"conv1": 1.5, "fc": 4.0}, reorders=0.25)
    assert one.least(other) == Profile(places={"conv1": 1.5, "fc": 1.0}, reorders=0.25)
    assert str(one.least(other)) == "layers 2.50 ms, of which reorders 10 %"


def test_parts_name_every_side_of_every_block():
    assert len(parts(CONFIG)) == 5 + 2 * 6
