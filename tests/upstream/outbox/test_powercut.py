"""The outbox after a power cut at any moment; for longer: ``python benchmarks/powercut.py outbox``."""

import random

import pytest

from tests.faults.powercut import check, tried
from tests.faults.recording import need_strace
from tests.upstream.outbox import exchange_lives
from tests.upstream.outbox.lives import recorded, violations


@pytest.mark.slow
def test_after_a_power_cut_every_row_is_there_or_accounted_for(ram_path):
    need_strace()
    check(recorded(1, ram_path), violations, cuts=50, least=200, folder=ram_path)


@pytest.mark.slow
def test_what_is_not_synced_would_be_noticed(ram_path):
    need_strace()
    operations = recorded(1, ram_path, "NORMAL")
    wrong = [
        line for _, found in tried(operations, violations, random.Random(1), cuts=8, folder=ram_path) for line in found
    ]
    assert any(line.endswith("is gone") for line in wrong)
    assert not any("unsound" in line or "damaged" in line for line in wrong)


@pytest.mark.slow
def test_a_power_cut_while_the_gallery_is_changed_loses_nothing_and_mixes_nothing(ram_path):
    need_strace()
    operations = exchange_lives.recorded(1, ram_path)
    check(operations, exchange_lives.violations, cuts=40, least=100, folder=ram_path)
