"""The catalogue against what the makers publish, and the places where detectors are looked for."""

import re
from pathlib import Path

import pytest

from reid_edge.camera.detectors.catalogue import (
    PRECISIONS,
    catalogue,
    catalogued,
    folders,
    installed,
    located,
    user_folder,
)
from reid_edge.errors import DetectorError

#: From 'files:' on, the model.yml of each detector in openvinotoolkit/open_model_zoo, models/intel/NAME (7ef5b91f).
LISTINGS = sorted((Path(__file__).parent / "model_yml").glob("*.yml"))
ENTRY = re.compile(r"- name: (\S+)\n\s+size: (\d+)\n\s+checksum: ([0-9a-f]{96})\n\s+source: (\S+)")
#: Its INT8 file finds people everywhere in every picture, with OpenVINO 2026.4 on a CPU with AVX-512.
NO_INT8 = "person-detection-retail-0013"
SHAPE = re.compile(r"shape: \[1, 3, (\d+), (\d+)\]")


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda path: path.stem)
def test_every_file_has_the_address_size_and_checksum_that_its_makers_publish(listing):
    detector = catalogue()[listing.stem]
    published = {(name, int(size), sha384, url) for name, size, sha384, url in ENTRY.findall(listing.read_text())}
    ours = {(file.path, file.size, file.sha384, file.url) for files in detector.files.values() for file in files}
    broken = {file for file in published if listing.stem == NO_INT8 and file[0].startswith("FP16-INT8")}
    assert ours == published - broken and len(published) == 6
    assert detector.input_hw == tuple(map(int, SHAPE.search(listing.read_text()).groups()))


def test_the_catalogue_is_what_is_listed_and_each_entry_can_be_fetched_in_each_precision():
    assert set(catalogue()) == {listing.stem for listing in LISTINGS}
    for name, detector in catalogue().items():
        assert detector.licence == "Apache-2.0"
        assert set(detector.files) == set(PRECISIONS) - ({"int8"} if name == NO_INT8 else set())
        for precision, (xml, weights) in detector.files.items():
            folder = {"fp16": "FP16", "fp32": "FP32", "int8": "FP16-INT8"}[precision]
            assert (xml.path, weights.path) == (f"{folder}/{name}.xml", f"{folder}/{name}.bin")
        assert 0.05 < detector.confidence <= detector.start < 1


def test_a_name_that_is_nearly_right_is_corrected_and_any_other_answered_with_all():
    with pytest.raises(DetectorError, match="did you mean person-detection-retail-0013"):
        catalogued("person-detection-retail-13")
    with pytest.raises(DetectorError, match=r"there are person-detection-0202, .*detector list"):
        catalogued("yolo11n")


def put(folder: Path, detector, precision) -> Path:
    path = folder / "reid-edge/detectors" / detector.name / detector.files[precision][0].path
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_the_users_folder_comes_before_the_machines_and_fp16_before_fp32_and_int8(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_DATA_DIRS", f"{tmp_path}/machine:relative:/usr/share")
    detector = catalogue()["person-detection-0200"]
    with pytest.raises(DetectorError, match=r"mine.*machine.*reid-edge detector get person-detection-0200"):
        located(detector)
    int8 = put(tmp_path / "mine", detector, "int8")
    assert located(detector) == ("int8", int8)
    put(tmp_path / "machine", detector, "fp16")
    mine = put(tmp_path / "mine", detector, "fp16")
    assert located(detector) == ("fp16", mine)
    assert installed(detector) == {"fp16": mine, "int8": int8}


def test_the_folders_are_those_of_the_xdg_specification(monkeypatch):
    monkeypatch.delenv("XDG_DATA_DIRS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert user_folder() == Path("/home/somebody/.local/share/reid-edge/detectors")
    assert [str(folder) for folder in folders()[1:]] == [
        "/usr/local/share/reid-edge/detectors",
        "/usr/share/reid-edge/detectors",
    ]
