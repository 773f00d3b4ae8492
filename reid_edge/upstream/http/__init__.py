"""Batches to a gallery by HTTP POST."""

from reid_edge.upstream.http.transport import BATCHES_PATH, CONTENT_TYPE, HttpTransport

__all__ = ["BATCHES_PATH", "CONTENT_TYPE", "HttpTransport"]
