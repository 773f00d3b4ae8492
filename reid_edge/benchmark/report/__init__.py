"""Reports: results of many devices as one page or as Markdown tables."""

from reid_edge.benchmark.report.data import ReportData, gather
from reid_edge.benchmark.report.html import write_page
from reid_edge.benchmark.report.markdown import markdown_report

__all__ = ["ReportData", "gather", "markdown_report", "write_page"]
