"""Alert rules and dashboard name only metrics, labels and kinds that both ends really serve."""

import contextlib
import json
import re
import shutil
import subprocess
import time
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reid_edge.camera.health import KINDS
from reid_edge.camera.status import AgentMetrics, StatusServer, machine
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.health import KINDS as GALLERY_KINDS
from reid_edge.gallery.metrics import GalleryMetrics
from reid_edge.gallery.store import open_store
from tests.camera.conftest import street  # noqa: F401 - a fixture
from tests.camera.test_agent import opened, session_bundle_is_loaded_once, settings  # noqa: F401 - fixtures
from tests.camera.test_status import get
from tests.conftest import REPOSITORY
from tests.gallery.stores import batch, record
from tests.system.recorded_trees import NUC, plant

FOLDER = REPOSITORY / "deploy" / "monitoring"
ALERTS, DASHBOARD = FOLDER / "alerts.yml", FOLDER / "dashboard.json"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@pytest.fixture
def served(settings, tmp_path):  # noqa: F811
    """Every name that an agent and a gallery serve, with the names of its labels."""
    with opened(settings()) as agent:
        agent.run()
        with contextlib.closing(StatusServer("127.0.0.1:0", AgentMetrics(agent), agent.health)) as server:
            pages = [get(f"http://127.0.0.1:{server.port}/metrics")[1]]
    counts = SimpleNamespace(messages=0, dropped=0, commits=0, failures=0, unanswered=0)
    mqtt = SimpleNamespace(
        connected=True, link=SimpleNamespace(connects=0), stats=counts, answers=SimpleNamespace(failures=0)
    )
    with contextlib.closing(open_store(f"sqlite:{tmp_path}/monitored.db", create=True)) as store:
        collector = Collector(store)
        future = time.time_ns() // 1000 + 3_600_000_000
        collector.receive([batch([record(1, at=future)])])  # refused, so that there is a reason
        pages.append(GalleryMetrics(collector, mqtt)()[0].decode())
    families = [family for page in pages for family in text_string_to_metric_families(page)]
    families += list(machine(plant(tmp_path / "nuc", NUC)))
    names = {}
    for sample in (sample for family in families for sample in family.samples):
        names.setdefault(sample.name, set()).update(sample.labels)
    return names


def expressions():
    """Every PromQL expression of both files; in the rules each stands on one line, or is folded."""
    rules = re.findall(r"^ +expr: (?:>-\n)?((?:.*\n)+?) +(?:for|labels):", ALERTS.read_text(encoding="utf-8"), re.M)
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return rules + [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_both_files_have_expressions():
    assert sum("reid_edge_gallery_" in text for text in expressions()) > 15
    assert len(expressions()) > 50
    alerts = ALERTS.read_text(encoding="utf-8")
    assert alerts.count("- alert:") == alerts.count(" expr:")


def test_every_metric_that_they_name_is_served(served):
    named = {name for text in expressions() for name in re.findall(r"reid_edge\w+", text)}
    assert not named - served.keys()
    queries = json.dumps(json.loads(DASHBOARD.read_text(encoding="utf-8"))["templating"])
    assert not set(re.findall(r"reid_edge\w+", queries)) - served.keys()


def test_every_label_that_they_name_is_there(served):
    for text in expressions():
        for name, labels in re.findall(r"(reid_edge\w+)\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+) *[=!]", labels)) - {"instance"} <= served[name], text
        [*grouped] = re.findall(r"by \(([\w, ]+)\)", text)
        labels = set().union(*(served[name] for name in re.findall(r"reid_edge\w+", text)), {"instance"})
        assert {label.strip() for group in grouped for label in group.split(",")} <= labels, text


def test_every_kind_of_problem_has_its_alert():
    text = ALERTS.read_text(encoding="utf-8")
    for metric, kinds in (("reid_edge_problem", KINDS), ("reid_edge_gallery_problem", GALLERY_KINDS)):
        lists = re.findall(metric + r'\{kind=~?"([\w|]+)"', text)
        named = {kind for one in lists for kind in one.split("|")}
        assert named and named < set(kinds)
        [rest] = re.findall(metric + r'\{kind![=~]"([\w|]+)"', text)
        assert set(rest.split("|")) == named  # what no alert names has that of the others


def test_every_metric_of_a_camera_is_documented(served):
    text = (REPOSITORY / "docs" / "camera.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\w+", text.split("## Monitoring")[1].split("## Privacy")[0]))
    for name in served:
        short = name.removeprefix("reid_edge_")
        if not short.startswith("gallery_"):
            assert {short, "_" + short.removeprefix("observations_")} & listed, name


@needs_promtool
def test_promtool_takes_the_rules_and_they_fire_when_they_should():
    for command in (["check", "rules", ALERTS], ["test", "rules", REPOSITORY / "tests" / "alerts_test.yml"]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
