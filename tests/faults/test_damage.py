"""Damage is what it says it is: one of these tests failing means that other tests prove nothing."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.damage import KINDS, Damage, damage_file, random_damage


@given(st.integers(), st.sampled_from(KINDS), st.integers(8192, 20_000))
def test_a_damage_changes_no_more_than_it_says(seed, kind, length):
    content = random.Random(seed).randbytes(length)
    damage = random_damage(content, random.Random(seed), [kind])
    after = damage.applied(content)
    if kind == "truncated":
        assert after == content[: damage.offset]
        return
    assert len(after) == length
    changed = {number for number in range(length) if after[number] != content[number]}
    sectors = set(range(damage.offset, damage.offset + max(1, damage.size)))
    if kind == "swapped":
        sectors |= set(range(damage.other, damage.other + damage.size))
    assert changed and changed <= sectors


def test_the_same_seed_does_the_same_damage(tmp_path):
    content, path = random.Random(1).randbytes(10_000), tmp_path / "outbox.db"
    done = set()
    for _ in range(2):
        path.write_bytes(content)
        done.add((damage_file(path, random.Random(5)), path.read_bytes()))
    assert len(done) == 1


@given(seed=st.integers())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_damaged_in_place_as_its_bytes_would_be(tmp_path, seed):
    content, path = random.Random(seed).randbytes(9000), tmp_path / "gallery.db"
    path.write_bytes(content)
    number = path.stat().st_ino
    assert damage_file(path, random.Random(seed)).applied(content) == path.read_bytes()
    assert path.stat().st_ino == number


def test_a_damage_says_where_it_is(tmp_path):
    path = tmp_path / "outbox.db-wal"
    path.write_bytes(b"\0" * 2000 + b"\1" * 100)
    assert str(damage_file(path, random.Random(1), ["zeroed"])) in (
        "outbox.db-wal: bytes 1536 to 2048 zeroed",
        "outbox.db-wal: bytes 0 to 4096 zeroed",
    )
    assert str(Damage("swapped", 512, size=512, other=1024)) == "512 bytes at 512 and at 1024 swapped"


def test_no_damage_is_invented_where_there_is_nothing_to_damage():
    with pytest.raises(ValueError, match="no damage"):
        random_damage(b"", random.Random(1))
    with pytest.raises(ValueError, match="no damage"):
        random_damage(bytes(4096), random.Random(1), ["zeroed", "swapped", "duplicated"])
