"""``reid-edge evaluate-people``."""

import json

import pytest
from typer.testing import CliRunner

from reid_edge.cli import app
from reid_edge.errors import OutputError


@pytest.fixture
def files(tmp_path):
    found, truth = tmp_path / "found.csv", tmp_path / "truth.csv"
    found.write_text("camera,tracklet,person\na,1,7\na,2,7\nb,1,7\nb,2,8\nb,3,8\n")
    truth.write_text("camera,tracklet,person\na,1,ann\na,2,ben\nb,1,ann\nb,2,ben\n")
    return str(found), str(truth)


def test_errors_and_metrics_are_printed_and_written(files, tmp_path):
    file = tmp_path / "figures.json"
    ran = CliRunner().invoke(app, ["evaluate-people", *files, "--json", str(file)])
    assert ran.exit_code == 0, ran.output
    assert "left out: 1 tracklet of" in ran.output.replace("\n", " ")
    assert "4 tracklets of 2 people, found as 2 people; 0 missing" in " ".join(ran.output.split())
    assert "1 of 3: 33.33 %" in " ".join(ran.output.split())
    figures = json.loads(file.read_text())
    assert (figures["false_merges"], figures["false_splits"], figures["right_pairs"]) == (2, 1, 1)
    assert figures["idf1"] == pytest.approx(0.75)
    with pytest.raises(OutputError, match="force"):
        CliRunner().invoke(app, ["evaluate-people", *files, "--json", str(file)], catch_exceptions=False)
