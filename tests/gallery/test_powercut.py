"""A gallery in SQLite after a power cut at any moment; for longer: ``python benchmarks/powercut.py gallery``."""

import random

import pytest

from tests.faults.powercut import check, tried
from tests.faults.recording import need_strace
from tests.gallery.store_lives import recorded, violations


@pytest.mark.slow
def test_after_a_power_cut_all_that_was_acknowledged_is_there_and_nothing_that_was_erased(ram_path):
    need_strace()
    check(recorded(1, ram_path), violations, cuts=50, least=200, folder=ram_path)


@pytest.mark.slow
def test_what_is_not_synced_would_be_noticed(ram_path):
    need_strace()
    synced = [operation for operation in recorded(1, ram_path) if operation.kind != "sync"]
    wrong = [
        line for _, found in tried(synced, violations, random.Random(1), cuts=4, folder=ram_path) for line in found
    ]
    assert any(line.startswith("acknowledged and gone") for line in wrong)
