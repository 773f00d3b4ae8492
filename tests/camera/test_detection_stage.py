from reid_edge.camera.detection_stage import OffSwitch


def test_no_switch_is_never_off():
    assert not OffSwitch(None)()


def test_the_camera_is_off_while_the_file_exists(tmp_path):
    path = tmp_path / "off"
    switch = OffSwitch(path, every_s=0)
    assert not switch()
    path.touch()
    assert switch()
    path.unlink()
    assert not switch()


def test_the_file_is_not_looked_for_at_every_frame(tmp_path):
    path = tmp_path / "off"
    switch = OffSwitch(path, every_s=3600)
    assert not switch()
    path.touch()
    assert not switch()


def test_a_path_that_may_not_be_looked_for_counts_as_off(tmp_path):
    switch = OffSwitch(tmp_path / ("x" * 300), every_s=0)
    assert switch()
    assert "cannot be checked" in switch.trouble
