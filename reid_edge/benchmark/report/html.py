"""One page that holds everything: figures, tables, style and Plotly itself.  It asks no network for anything."""

from __future__ import annotations

import datetime
import itertools
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_edge.benchmark.report import tables
from reid_edge.benchmark.report.charts import DASHES, SYMBOLS
from reid_edge.benchmark.report.data import Survey, models_of, threads_text
from reid_edge.benchmark.report.figures import all_figures, roofs
from reid_edge.console import extra
from reid_edge.files import write_whole

if TYPE_CHECKING:
    import jinja2

#: Plotly's line patterns in SVG.
SVG_DASHES = {"solid": "", "dash": "8 5", "dot": "2 4", "dashdot": "8 4 2 4"}

_HERE = files("reid_edge.benchmark.report")


def write_page(survey: Survey, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        MissingExtraError: Plotly or Jinja is not installed.
        OutputError: It cannot be written.
    """
    with extra("report", "making a page of plots (Markdown needs nothing)"):
        text = page(survey)
    write_whole(path, text.encode())


def page(survey: Survey) -> str:
    """The page as text, some 5 MB, nearly all of it Plotly's."""
    from plotly.offline import get_plotlyjs

    figures = all_figures(survey)
    return _template().render(
        survey=survey,
        tables=tables,
        models_of=models_of,
        figures=figures,
        legend=[(form, tone, SYMBOLS[form.split("/")[1]]) for tone, form in enumerate(survey.forms)],  # type: ignore[index]
        dashes=_dashes(survey),
        grids=any(tables.grid_of(site, query) for site in survey.sites for query in survey.queries),
        roofs=lambda site: [(text, SVG_DASHES[dash]) for text, dash in roofs(site)],
        noted=[(site.label, note) for site in survey.sites for result in site.results for note in result.notes],
        noisy=sum(entry.noisy for entry in survey.entries),
        made=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=_asset("page.css"),
        script=_asset("page.js"),
        plotly=get_plotlyjs(),
        data=_for_script(figures),
    )


def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["run_row"] = tables.run_row
    return environment.from_string(_asset("page.html.j2"))


def _dashes(survey: Survey) -> list[tuple[str, str]]:
    """What the lines' patterns mean: text, and the pattern as SVG takes it."""
    counts = sorted({entry.run.threads or 0 for entry in survey.entries})
    patterns = itertools.cycle(SVG_DASHES[dash] for dash in DASHES)
    return [(threads_text(count or None), pattern) for count, pattern in zip(counts, patterns, strict=False)]


def _asset(name: str) -> str:
    return _HERE.joinpath(name).read_text(encoding="utf-8")


def _for_script(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
