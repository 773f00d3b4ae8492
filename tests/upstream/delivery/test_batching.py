from hypothesis import given
from hypothesis import strategies as st

from reid_edge.upstream.delivery.batching import divided
from reid_edge.upstream.message import encode_batch
from reid_edge.upstream.observation import Gap

CAMERA, INCARNATION, GALLERIES = "c" * 64, "e" * 64, ("g" * 64, "h" * 64)
rows = st.lists(st.tuples(st.integers(1, 2**63 - 1), st.binary(max_size=300)), max_size=30)
gaps = st.lists(st.integers(1, 2**63 - 1).map(lambda seq: Gap(seq, seq, 1, "full")), max_size=30)


@given(rows, gaps, st.integers(-100, 3000))
def test_no_batch_is_larger_than_the_limit_and_nothing_is_left_out(rows, gaps, most):
    empty = len(encode_batch(CAMERA, INCARNATION, [], galleries=GALLERIES))
    parts, too_large = divided(rows, gaps, most)
    assert sorted([*(row for part in parts for row in part.rows), *too_large]) == sorted(rows)
    assert [gap for part in parts for gap in part.gaps] == gaps
    for part in parts:
        size = len(encode_batch(CAMERA, INCARNATION, part.rows, part.gaps, galleries=GALLERIES)) - empty
        assert size <= most or (not part.rows and len(part.gaps) == 1), "a gap alone is sent whatever its size"
    for _, observation in too_large:
        assert len(observation) + 24 > most


@given(rows, gaps)
def test_what_fits_is_one_batch(rows, gaps):
    parts, too_large = divided(rows, gaps, 10**6)
    assert len(parts) == bool(rows or gaps)
    assert not too_large
