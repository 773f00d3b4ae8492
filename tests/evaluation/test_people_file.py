"""Files of people found and of true ones."""

import pytest

from reid_edge.errors import InputError
from reid_edge.evaluation.people_file import compared, read_people


def written(tmp_path, name, *lines):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_people(path)


def test_rows_are_put_side_by_side_by_camera_and_tracklet(tmp_path):
    found = written(
        tmp_path, "found.csv", "id,camera,crops,person", "1,door,3,7", "2,door,3,7", "1,hall,3,8", "9,hall,1,8"
    )
    truth = written(
        tmp_path, "truth.csv", "camera;tracklet;person", "door;1;ann", "door;2;ben", "hall;1;ann", "hall;3;"
    )
    rows = compared(found, truth)
    assert rows.true.tolist() == [0, 1, 0, -1]
    assert rows.found.tolist() == [0, 0, 1, -1]
    assert rows.left_out == 1


def test_a_row_found_without_a_person_is_a_person_of_its_own(tmp_path):
    found = written(tmp_path, "found.csv", "camera,tracklet,person", "a,1,", "a,2,", "a,3,5")
    truth = written(tmp_path, "truth.csv", "camera,tracklet,person", "a,1,x", "a,2,x", "a,3,x")
    assert len(set(compared(found, truth).found)) == 3


def test_moments_of_tracklets_are_told_apart_by_their_time(tmp_path):
    found = written(tmp_path, "found.csv", "camera,tracklet,time,person", "a,1,0,4", "a,1,1,5")
    truth = written(tmp_path, "truth.csv", "camera,tracklet,time,person", "a,1,0,x", "a,1,1,x")
    assert compared(found, truth).found.tolist() == [0, 1]
    plain = written(tmp_path, "plain.csv", "camera,tracklet,person", "a,1,x")
    with pytest.raises(InputError, match=r"found\.csv has a column 'time' and .*plain\.csv has none"):
        compared(found, plain)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["camera,tracklet", "a,1"], "missing: person"),
        (["name", "a"], r"missing: camera, tracklet \(or id\), person"),
        (
            ["camera,tracklet,person", "a,1,x", "a,1,y", ",2,z"],
            r"2 bad rows: line 3: a 1 stands in line 2 already; line 4",
        ),
        ([""], "found: nothing"),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path, lines, problem):
    with pytest.raises(InputError, match=problem):
        written(tmp_path, "bad.csv", *lines)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv is not a readable CSV file"):
        read_people(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("camera,tracklet,person\na,1,Jos\xe9\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv is not a readable CSV file in UTF-8"):
        read_people(tmp_path / "latin.csv")


def test_files_of_other_cameras_are_refused_with_an_example_of_each(tmp_path):
    found = written(tmp_path, "found.csv", "camera,tracklet,person", "door,1,4")
    truth = written(tmp_path, "truth.csv", "camera,tracklet,person", "Door,1,x")
    with pytest.raises(InputError, match=r"no tracklet in common.*door 1 and Door 1"):
        compared(found, truth)
