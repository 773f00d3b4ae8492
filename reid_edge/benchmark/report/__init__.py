"""Results of many devices, made into one page or into Markdown tables."""

from reid_edge.benchmark.report.data import Survey, survey
from reid_edge.benchmark.report.html import write_page
from reid_edge.benchmark.report.markdown import markdown_report

__all__ = ["Survey", "markdown_report", "survey", "write_page"]
