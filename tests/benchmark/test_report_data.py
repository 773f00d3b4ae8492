from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.benchmark.report import gather
from reid_edge.benchmark.report.data import Accuracy, Entry, models_of
from reid_edge.benchmark.report.tables import grid_of, number
from reid_edge.errors import InputError
from tests.benchmark.results import ORIN, TABLE_6, XEON, grid_models, make_result, model

ONE = make_result([model(accuracy={"market1501/mAP": 70.4}, form_mult_adds={"openvino/fp32": 82_300_000})])


A, B, C = ("deadbeef" + digit * 56 for digit in "012")


def test_models_that_share_a_name_are_told_apart_and_none_is_lost():
    # By mult-adds, the two of one name are not neighbours.
    models = [
        replace(model(1.0), name="osnet", model_hash="1" * 64),
        replace(model(0.5), name="other"),
        replace(model(0.25), name="osnet", model_hash="2" * 64),
    ]
    found = gather([make_result(models)])
    groups = models_of(found.entries)
    assert {name: len(group) for name, group in groups.items()} == {
        "osnet (11111111)": 24,
        "other": 24,
        "osnet (22222222)": 24,
    }
    for group in groups.values():
        assert len({entry.model.width for entry in group}) == 1


def test_the_hash_is_as_long_as_it_takes_and_the_same_on_every_device():
    first = make_result([replace(model(), name="osnet", model_hash=one) for one in (A, B)])
    second = make_result([replace(model(), name="osnet", model_hash=one) for one in (A, C)], device=ORIN)
    names = [[one.name for one in device.results[0].models] for device in gather([first, second]).devices]
    assert names == [["osnet (deadbeef0)", "osnet (deadbeef1)"], ["osnet (deadbeef0)", "osnet (deadbeef2)"]]


def test_no_run_is_lost_even_where_one_name_has_two_sizes():
    twice = [model(1.0), model(0.5), replace(model(0.25), name=model(1.0).name, model_hash=model(1.0).model_hash)]
    result = make_result(twice, precisions=("fp32",))
    runs = [replace(run, precision="fp16") if run.model == 2 else run for run in result.runs]
    entries = gather([replace(result, runs=tuple(runs))]).entries
    assert sum(map(len, models_of(entries).values())) == len(entries) == 24


def test_a_bundle_twice_in_one_file_is_an_error_that_names_the_model():
    name, short = model().name, model().model_hash[:8]
    with pytest.raises(InputError, match=rf"lists the model {name} \(hash {short}\) more than once") as raised:
        gather([make_result([model(), model()])])
    assert "one of the files" not in str(raised.value)


def test_the_same_run_twice_is_an_error_that_says_which():
    again = make_result([model()], precisions=("fp32",), queries=(("single-stream", 1, 0.7),), engines=("openvino",))
    with pytest.raises(InputError, match=r"osnet_x0_25_256x128, openvino/fp32, single-stream, 1 crop.*Leave one"):
        gather([ONE, again])


def test_results_of_one_device_are_joined_and_of_others_are_not():
    other = make_result([model(0.5)])
    orin = make_result([model()], device=ORIN)
    found = gather([ONE, orin, other])
    assert [(device.label, len(device.results), len(device.entries)) for device in found.devices] == [
        ("Intel Xeon Silver 4410Y", 2, 48),
        ("NVIDIA Jetson Orin Nano Developer Kit, 15W (0)", 1, 24),
    ]
    assert {entry.model.width for entry in found.devices[0].entries} == {0.25, 0.5}


def test_labels_tell_devices_apart():
    devices = [
        XEON,
        replace(XEON, isa_limit="AVX2"),
        replace(XEON, cpus=4),
        replace(ORIN, jetson={"power mode": "MAXN (2)"}),
        replace(ORIN, instruction_sets=("neon",)),
        replace(ORIN, instruction_sets=()),
    ]
    labels = [device.label for device in gather([make_result([model()], device=device) for device in devices]).devices]
    assert labels == [
        "Intel Xeon Silver 4410Y, 2 CPUs, performance",
        "Intel Xeon Silver 4410Y, limited to AVX2",
        "Intel Xeon Silver 4410Y, 4 CPUs, performance",
        "NVIDIA Jetson Orin Nano Developer Kit, MAXN (2)",
        "NVIDIA Jetson Orin Nano Developer Kit, 15W (0), 6 CPUs (1)",
        "NVIDIA Jetson Orin Nano Developer Kit, 15W (0), 6 CPUs (2)",
    ]


def test_accuracy_is_that_of_the_variant_or_for_float_the_checkpoints_and_never_a_guess():
    timed = model(accuracy={"market1501/mAP": 70.4, "market1501/openvino/int8/mAP": 70.1, "market1501/R1": 87.0})
    result = make_result([timed], queries=(("offline", 32, 1.0),))
    found = {entry.variant: entry.accuracies() for entry in gather([result]).entries}
    own = [Accuracy("market1501", 70.4, measured=False)]
    assert found == {
        "onnxruntime/fp32": own,
        "onnxruntime/fp16": own,
        "onnxruntime/int8": [],
        "openvino/fp32": own,
        "openvino/fp16": own,
        "openvino/int8": [Accuracy("market1501", 70.1, measured=True)],
    }


def test_intensity_counts_the_file_once_and_every_crop_once():
    entry = Entry(replace(ONE.models[0], mult_adds=1_000_000), replace(ONE.runs[0], crops=8, size_bytes=213_568))
    # 8 crops: 16 million operations; 213,568 bytes of weights and 8 × 98,304 of pixels: a million bytes.
    assert entry.intensity == pytest.approx(16.0)
    collapsed = replace(entry, model=replace(entry.model, form_mult_adds={entry.variant: 2_000_000}))
    assert collapsed.intensity == pytest.approx(32.0)


def test_the_grid_is_the_papers_table_6():
    device = gather([make_result(grid_models(), precisions=("fp32",))]).devices[0]
    grid = grid_of(device, gather([make_result(grid_models())]).queries[0])
    assert grid.columns == ("γ = 1, 256×128", "γ = 0.75, 192×96", "γ = 0.5, 128×64", "γ = 0.25, 64×32")
    assert [(width, parameters) for width, parameters, _ in grid.rows] == [
        ("1", "2.2M"),
        ("0.75", "1.3M"),
        ("0.5", "0.6M"),
        ("0.25", "0.2M"),
    ]
    printed = [[cell.mult_adds for cell in cells] for _, _, cells in grid.rows]
    assert printed == [[f"{millions}M" for millions in row] for _, row in TABLE_6.values()]
    trained = grid.rows[3][2][0]
    assert trained.accuracies == ("mAP 70.4 (market1501)",)
    assert not any(cell.accuracies for _, _, cells in grid.rows for cell in cells if cell is not trained)


def test_a_few_models_are_no_grid():
    models = [model(1.0), model(0.25, (64, 32)), model(0.5, (128, 64))]
    found = gather([make_result(models)])
    assert grid_of(found.devices[0], found.queries[0]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (1.7249, "1.72"),
        (9.996, "10.0"),
        (99.96, "100"),
        (123456.7, "123,457"),
        (None, "–"),
        (0, "0"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


@given(st.floats(1e-6, 1e9))
def test_a_number_is_never_far_from_what_it_shows(value):
    shown = float(number(value).replace(",", ""))
    assert abs(shown - value) <= 0.00501 * value
