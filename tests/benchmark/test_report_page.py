import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import pytest

from reid_edge.benchmark.report import gather, markdown_report
from reid_edge.benchmark.report.html import page
from reid_edge.cli.report import report
from reid_edge.errors import InputError, MissingExtraError, OutputError, UsageError
from tests.benchmark.results import ORIN, XEON, grid_models, make_result, model, zoo_models

EVIL = "</script><script>alert('x')</script>|<img src=x onerror=y>"
NOTE = "the CPU throttled 3 times"


@pytest.fixture(scope="module")
def found():
    first = make_result(zoo_models(), threads=(1, 2), noisy={("onnxruntime", "int8")}, notes=(NOTE,))
    orin = replace(ORIN, name=EVIL)
    second = make_result([replace(model(), name=EVIL)], device=orin, engines=("onnxruntime", "tensorrt"))
    return gather([first, second])


@pytest.fixture(scope="module")
def text(found):
    return page(found)


class Reader(HTMLParser):
    """Elements, the text of table cells, and what may ask a network for something."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.rows, self.figures, self.within = [], [], [], "", ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.within = f"{tag}#{dict(attrs).get('id', '')}"
        self.addresses += [(tag, name, value) for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.within = ""

    def handle_data(self, data):
        if self.within == "script#figures":
            self.figures += data
        elif self.within.startswith("td") and self.rows:
            self.rows[-1][-1] += data


def test_the_page_asks_no_network_for_anything(text):
    reader = Reader(text)
    assert reader.addresses == []
    assert not {"img", "iframe", "link", "object", "base"} & set(reader.tags)
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import", text[text.index("<style>") : text.index("</style>")])


def test_names_in_a_result_do_nothing(text):
    reader = Reader(text)
    assert reader.tags.count("script") == 3
    assert EVIL not in text
    assert any(EVIL in row[0] for row in reader.rows if row)
    hovers = json.dumps(json.loads(reader.figures)["latency-1"])
    assert "<img" not in hovers
    assert html.escape("<img") in hovers


def test_every_run_is_in_the_table_with_its_verdict(text, found):
    rows = [row for row in Reader(text).rows if len(row) == 23]
    assert len(rows) == len(found.entries) == 48 * 4 + 24
    noisy = [row for row in rows if row[-1].startswith("noisy")]
    assert len(noisy) == 8  # four models, two numbers of threads
    assert all(row[5].startswith("≈") and row[1] == "onnxruntime/int8" for row in noisy)


def test_notes_devices_and_what_was_not_run_are_shown(text):
    for expected in (NOTE, "no GPU here: TensorRT needs one", "amx_int8", "58 °C", "15W", "21.4 GB/s"):
        assert expected in text


def test_figures_are_those_that_the_page_has_places_for(text):
    places = {html.unescape(name) for name in re.findall(r'data-figure="([^"]*)"', text)}
    assert set(json.loads(Reader(text).figures)) <= places
    assert "accuracy-0-market1501" in places


@pytest.mark.skipif(not shutil.which("chromium"), reason="no browser here")
def test_a_browser_draws_it_all(text, tmp_path):
    """Each step of a reader: another query, a variant hidden, a table sorted, everything unfolded."""
    steps = """<script>
    document.querySelectorAll("details").forEach((one) => { one.open = true; });
    const select = document.getElementById("query");
    select.value = "end-to-end, 8 crops of a frame";
    select.dispatchEvent(new Event("change"));
    document.querySelector(".legend button").click();
    [...document.querySelectorAll("table.runs th button")].find((one) => one.textContent === "p50 ms").click();
    setTimeout(() => { document.title = JSON.stringify({
      errors: window.problems,
      drawn: [...document.querySelectorAll(".js-plotly-plot")].length,
      empty: [...document.querySelectorAll(".plot.empty")].map((one) => one.dataset.figure),
      wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
      sorted: [...document.querySelectorAll("table.runs")[0].tBodies[0].rows].map((one) => one.cells[5].textContent),
      shown: [...document.querySelectorAll("[data-query]:not([hidden])")].map((one) => one.dataset.query),
    }); }, 1500);
    </script></body>"""
    watch = "<script>window.problems = []; window.onerror = (text) => window.problems.push(text);</script><style>"
    path = tmp_path / "page.html"
    path.write_text(text.replace("<style>", watch, 1).replace("</body>", steps))
    run = subprocess.run(
        [
            *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,2000"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    seen = json.loads(html.unescape(re.search("<title>(.*?)</title>", run.stdout).group(1)))
    assert seen["errors"] == []
    assert seen["drawn"] == len(re.findall("data-figure=", text)) - len(seen["empty"])
    assert seen["empty"] == ["accuracy-1-market1501"]
    assert not seen["wide"]
    medians = [float(one.strip("≈").replace(",", "")) for one in seen["sorted"]]
    assert medians == sorted(medians)
    assert set(seen["shown"]) == {"end-to-end, 8 crops of a frame"}


def rows_of(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


def test_markdown_has_a_row_for_every_variant_and_marks_noise(found):
    markdown = markdown_report(found)
    rows = [[cell.strip() for cell in row] for row in rows_of(markdown)]
    assert {len(row) for row in rows} == {11}
    first = [row for row in rows if row[0].startswith("osnet_x1_256")]
    assert len(first) == 12  # two engines, three precisions, two numbers of threads
    assert [row[3].startswith("≈") for row in first] == [row[1] == "onnxruntime/int8" for row in first]
    assert [row[8] for row in first if row[1] == "openvino/int8"] == ["82.4", "82.4"]
    assert NOTE in markdown
    assert "<" not in markdown


def test_markdown_shows_a_grid_as_the_paper_does():
    rows = rows_of(
        markdown_report(gather([make_result(grid_models(), precisions=("fp32",), queries=(("offline", 32, 1),))]))
    )
    assert [len(row) for row in rows] == [6] * 6
    assert rows[2][2].strip().startswith("978.9M · ")
    assert rows[5][2].strip().endswith("mAP 70.4 (market1501)")


def test_a_command_stays_in_its_fence():
    command = "reid-edge benchmark x\n```\n# Mine\n`````\nend"
    text = markdown_report(gather([replace(make_result([model()]), command=command)]))
    assert f"``````text\n{command}\n``````\n" in text
    plain = markdown_report(gather([make_result([model()])]))
    assert "\n```text\n" in plain


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[x](https://evil)", r"\[x\](https://evil)"),
        ("![x](y)", r"!\[x\](y)"),
        ("a`b", r"a\`b"),
        ("~~~ *b*", r"\~\~\~ \*b\*"),
        ("a\\|b", r"a\\\|b"),  # a backslash of its own must not free the column's mark
        ("osnet_x0_25", "osnet_x0_25"),
    ],
)
def test_a_name_does_nothing_in_markdown(name, shown):
    text = markdown_report(gather([make_result([replace(model(), name=name)], device=replace(XEON, name=name))]))
    assert f"### {shown}\n" in text
    assert f"\n| {shown} | " in text
    assert f"* Not run: {shown}, " in text


@pytest.fixture
def result_file(tmp_path):
    path = tmp_path / "xeon.json"
    path.write_bytes(msgspec.json.encode(make_result([model()], device=XEON)))
    return path


def test_the_command_writes_page_and_tables(result_file, tmp_path, capsys):
    report([result_file], out=tmp_path / "new" / "page.html", markdown=str(tmp_path / "tables.md"))
    assert "24 runs on 1 device\n" in capsys.readouterr().out
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "tables.md").read_text().startswith("### Intel Xeon")


def test_tables_alone_need_no_plotly(result_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    report([result_file], markdown="-")
    assert capsys.readouterr().out.startswith("### Intel Xeon")
    with pytest.raises(MissingExtraError, match=r"reid-edge\[report\]"):
        report([result_file], out=tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["xeon.json"]


def test_nothing_is_replaced_unless_forced(result_file, tmp_path):
    out = tmp_path / "tables.md"
    out.write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        report([result_file], markdown=str(out))
    assert out.read_text() == "mine"
    report([result_file], markdown=str(out), force=True)
    assert out.read_text() != "mine"
    with pytest.raises(OutputError, match="is a folder"):
        report([result_file], out=tmp_path)


def test_a_bad_result_leaves_nothing(result_file, tmp_path):
    with pytest.raises(InputError, match="Leave one of the files out"):
        report([result_file, result_file], out=tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["xeon.json"]


@pytest.mark.parametrize("force", [False, True])
def test_page_and_tables_cannot_be_one_file(result_file, tmp_path, force):
    out = tmp_path / "both"
    with pytest.raises(UsageError, match=r"both.*two different files"):
        report([result_file], out=out, markdown=str(tmp_path / "new" / ".." / "both"), force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["xeon.json"]


def test_an_output_that_cannot_be_made_is_an_error(result_file):
    with pytest.raises(OutputError, match="cannot write"):
        report([result_file], out=result_file / "page.html")
