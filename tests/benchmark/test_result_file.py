"""The file of a result: written whole, read with every figure checked, and true to its schema."""

import json
import re
import runpy
from pathlib import Path

import jsonschema
import msgspec
import pytest

from reid_edge.benchmark.report import gather, markdown_report
from reid_edge.benchmark.report.html import page
from reid_edge.benchmark.result_file import read_result, write_result
from reid_edge.errors import InputError, OutputError
from reid_edge.files import check_output
from tests.benchmark.results import make_result, model

REPOSITORY = Path(__file__).parents[2]
SCHEMA = REPOSITORY / "docs" / "benchmark.schema.json"
RECORDED = sorted((REPOSITORY / "benchmarks" / "results").glob("benchmark-*.json"))
ONE = make_result([model(accuracy={"market1501/mAP": 70.4}, form_mult_adds={"openvino/fp32": 82_300_000})])


def test_the_schema_in_docs_is_that_of_the_code():
    script = runpy.run_path(str(SCHEMA.with_name("make_schema.py")))
    assert SCHEMA.read_bytes() == script["benchmark_schema"](), "run: python docs/make_schema.py"


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_result_recorded_by_an_earlier_release_still_fits_the_schema_and_makes_a_report(path):
    jsonschema.validate(json.loads(path.read_text()), json.loads(SCHEMA.read_text()))
    result = read_result(path)
    assert len(result.runs) > 1
    found = gather([result])
    assert result.device.name in markdown_report(found)
    assert page(found).count("<tr") > len(result.runs)


def test_there_are_recorded_results():
    assert RECORDED


@pytest.fixture
def written(tmp_path):
    def write(value):
        path = tmp_path / "result.json"
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return path

    return write


def as_json(result):
    return json.loads(msgspec.json.encode(result))


def test_a_result_is_read_as_it_was_written(written):
    assert read_result(written(as_json(ONE))) == ONE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not a benchmark's result"),
        (b"", "not a benchmark's result"),
        (b'{"format_version": 1', "not a benchmark's result"),
        ([1, 2], "not a benchmark's result"),
        ({"name": "My app"}, "no format_version"),
        ({"format_version": "one"}, "not a benchmark's result"),
        ({"format_version": 0}, "format_version 0, expected 1"),
        ({"format_version": -1}, "format_version -1, expected 1"),
        ({"format_version": 2, "something": "new"}, "format 2; this release reads up to 1.*Upgrade"),
        ({"format_version": 1, "created": "today"}, "missing required field"),
    ],
)
def test_what_is_no_result_is_an_error(written, content, message):
    with pytest.raises(InputError, match=message):
        read_result(written(content))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_result(tmp_path / "nothing.json")


@pytest.mark.parametrize("key", ["runs", "not_run"])
def test_a_run_of_a_model_that_is_not_listed_is_an_error(written, key):
    value = as_json(ONE)
    value[key][0]["model"] = 1
    with pytest.raises(InputError, match="names model 1 but lists 1"):
        read_result(written(value))


def put(value, field, new):
    *way, last = re.findall(r"[^.\[\]]+", field)
    for step in way:
        value = value[int(step) if step.isdigit() else step]
    value[int(last) if last.isdigit() else last] = new


@pytest.mark.parametrize(
    ("field", "absurd"),
    [
        ("runs[3].summary.p50", 0),
        ("runs[3].summary.p50", -1.5),
        ("runs[3].summary.p50", 5e-324),
        ("runs[0].summary.min", 0),
        ("runs[0].summary.ci_low", -0.1),
        ("runs[0].summary.p99", 1e300),
        ("runs[2].gflops", 0),
        ("runs[2].crops", 0),
        ("runs[2].size_bytes", -1),
        ("runs[2].fraction_of_peak", 1e308),
        ("roofline.peaks[1].gflops", 0),
        ("roofline.peaks[1].gflops", -3),
        ("roofline.bandwidth_gbs", 0),
        ("models[0].mult_adds", 0),
        ("models[0].mult_adds", 10**400),
        ("models[0].form_mult_adds[openvino/fp32]", 0),
        ("models[0].size[0]", 0),
        ("models[0].accuracy[market1501/mAP]", 101),
        ("device.memory_bytes", 10**400),
    ],
)
def test_a_figure_that_cannot_be_is_an_error_that_names_file_and_field(written, field, absurd):
    value = as_json(ONE)
    put(value, field, absurd)
    with pytest.raises(InputError, match=rf"result\.json.*{re.escape(field)} is .*, expected"):
        read_result(written(value))


def test_an_accuracy_without_a_dataset_is_an_error(written):
    value = as_json(ONE)
    value["models"][0]["accuracy"] = {"mAP": 70.0}
    with pytest.raises(InputError, match=r"result\.json: models\[0\]\.accuracy has the key 'mAP', expected dataset/"):
        read_result(written(value))


def test_a_page_can_be_made_of_the_least_that_is_let_through(written):
    value = as_json(make_result([model()], queries=(("single-stream", 1, 1.0),)))
    for run in value["runs"]:
        run |= {"gflops": 1e-12, "size_bytes": 0, "fraction_of_peak": 0, "load_ms": 0}
        run["summary"] |= dict.fromkeys(("min", "p50", "p90", "p95", "p99", "ci_low", "ci_high"), 1e-12)
    for field, least in (("roofline.bandwidth_gbs", 1e18), ("models[0].mult_adds", 1), ("models[0].size", [1, 1])):
        put(value, field, least)
    assert page(gather([read_result(written(value))])).startswith("<!doctype html>")


def test_a_disk_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "r.json").mkdir()  # taken since it was checked
    with pytest.raises(OutputError, match="cannot write"):
        write_result(tmp_path / "r.json", ONE)
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_name_may_be_as_long_as_the_disk_takes(tmp_path):
    path = tmp_path / (245 * "a" + ".json")
    check_output(path, force=False)
    write_result(path, ONE)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="File name too long"):
        write_result(tmp_path / (255 * "a" + ".json"), ONE)
    assert list(tmp_path.iterdir()) == [path]
