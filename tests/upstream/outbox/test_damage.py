"""Damage to an outbox's files, at rest and in use; for longer: ``python benchmarks/outbox_damage.py``."""

import pytest

from tests.upstream.outbox.damages import outcomes, summary


@pytest.mark.slow
def test_after_any_damage_all_is_delivered_or_declared_and_nothing_is_stuck(ram_path):
    found = list(outcomes(range(8), 10, ram_path))
    assert len(found) == 120
    assert not [(seed, outcome) for seed, outcome in found if outcome.wrong]
    assert set(summary([outcome for _, outcome in found])) == {"all delivered", "declared", "set aside and declared"}
