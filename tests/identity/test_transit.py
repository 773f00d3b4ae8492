import numpy as np
import pytest

from reid_edge.errors import SettingsError
from reid_edge.identity.transit import StatedTransits, doubtful_pairs, read_transits
from tests.identity.scenes import make_scene


def written(folder, text):
    path = folder / "transits.toml"
    path.write_text(text)
    return path


def test_times_are_read_for_both_directions(tmp_path):
    path = written(tmp_path, 'clock_tolerance_s = 1\n[[transit]]\ncameras = ["hall", "door"]\nshortest_s = 20\n')
    transits = read_transits(path)
    assert transits == StatedTransits(shortest_s={("door", "hall"): 20.0}, tolerance_s=1.0)
    times = transits.shortest_between(("door", "hall", "yard"))
    assert times[0, 1] == times[1, 0] == 19 and np.isneginf(times[0, 2]) and np.isneginf(times[0, 0])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[transit]]\ncameras = ['a', 'b']\n", "cameras and shortest_s"),
        ("[[transit]]\ncameras = ['a', 'b']\nshortest_s = -1\n", "0 or more for transit.shortest_s, got -1"),
        ("[[transit]]\ncameras = ['a', 'b']\nshortest_s = nan\n", "0 or more"),
        ("[[transit]]\ncameras = ['a', 'a']\nshortest_s = 1\n", "names a twice"),
        ("[[transit]]\ncameras = ['a']\nshortest_s = 1\n", "two names"),
        ("[transit]\ncameras = ['a', 'b']\n", r"tables \[\[transit\]\]"),
        ("speed = 3\n", "got speed"),
        (
            "[[transit]]\ncameras = ['a', 'b']\nshortest_s = 1\n" * 1
            + "[[transit]]\ncameras = ['b', 'a']\nshortest_s = 2\n",
            "stands twice",
        ),
        ("[[", "is not TOML"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(tmp_path, text, problem):
    with pytest.raises(SettingsError, match=problem):
        read_transits(written(tmp_path, text))


def test_an_overlapping_view_is_no_constraint():
    assert np.isneginf(StatedTransits(shortest_s={("a", "b"): 0.0}).shortest_between(("a", "b"))).all()


def walkers(seconds, count=40, clock=0.0):
    """Each passes the door, and the hall so many seconds later; others are in between."""
    starts = np.arange(count) * 200.0
    times = [(start, start + 5) for start in starts] + [
        (start + 5 + seconds + clock, start + 10 + seconds + clock) for start in starts
    ]
    scene = make_scene(people=2 * count, cameras=1).sightings
    features = scene.features
    from reid_edge.identity.sightings import Sightings

    sightings = Sightings(
        model_hash="m",
        ids=tuple(f"{row:03d}" for row in range(2 * count)),
        cameras=("door",) * count + ("hall",) * count,
        first_s=np.array([first for first, _ in times]),
        last_s=np.array([last for _, last in times]),
        features=features,
    )
    return sightings, np.stack([np.arange(count), np.arange(count) + count], axis=1)


def test_a_stated_time_that_matches_contradict_is_doubted():
    stated = StatedTransits(shortest_s={("door", "hall"): 15.0})
    sightings, matches = walkers(20)
    assert doubtful_pairs(stated, sightings, matches) == ()
    behind, matches = walkers(20, clock=-30)
    assert doubtful_pairs(stated, behind, matches) == (("door", "hall"),)
    assert doubtful_pairs(stated, behind, matches[:9]) == ()
