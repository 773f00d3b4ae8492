"""Outboxes that earlier releases wrote are opened and delivered as those releases would have."""

import gzip
from pathlib import Path

import pytest

from reid_edge.upstream.outbox import Outbox
from tests.upstream.observing import observed
from tests.upstream.outbox.make import delivered

FORMATS = sorted((Path(__file__).parent / "outbox").glob("v*"))


@pytest.fixture(params=["closed.db", "killed.db"])
def stored(request, tmp_path):
    def restored(folder: Path) -> Path:
        for packed in folder.glob(f"{request.param}*.gz"):
            (tmp_path / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
        return tmp_path / request.param

    return restored


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_a_stored_outbox_is_delivered_byte_for_byte(stored, folder):
    path = stored(folder)
    assert delivered(path) == [batch.read_bytes() for batch in sorted(folder.glob("batch_*.bin"))]
    assert delivered(path) == []


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_a_stored_outbox_goes_on_where_it_stopped(stored, folder):
    outbox = Outbox(stored(folder))
    try:
        assert outbox.set_aside == []
        assert outbox.dropped == {"full": 2, "expired": 0, "lost": 3}
        assert (outbox.depth, outbox.gap_count) == (7, 2)
        outbox.put([observed(12)])
        assert outbox.depth == 8
        assert outbox.last_seq > 14
    finally:
        outbox.close()


def test_the_current_format_is_stored():
    assert FORMATS
