import datetime
import threading
import time

import cv2
import msgspec
import numpy as np
import pytest

from reid_edge.camera.frames import Frame
from reid_edge.camera.sources import SourceSettings, open_source
from reid_edge.camera.sources.capture import Thinning
from reid_edge.camera.sources.clock import CaptureClock
from reid_edge.camera.sources.positions import Positions
from reid_edge.camera.sources.source import FrameBuffer
from reid_edge.errors import SettingsError, SourceError
from reid_edge.redaction import redacted

NEEDS_FFMPEG = pytest.mark.skipif("'FFMPEG:                      NO' in __import__('cv2').getBuildInformation()")
START = datetime.datetime(2026, 5, 1, 12, 0, tzinfo=datetime.timezone.utc)
START_US = 1_777_636_800_000_000


def picture(value: int, size_wh=(64, 48)) -> np.ndarray:
    return np.full((size_wh[1], size_wh[0], 3), value, np.uint8)


def write_video(path, count: int, *, fps: float = 10.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    for number in range(count):
        writer.write(picture(number * 10))
    writer.release()
    return path


def write_mp4(path):
    """Twenty frames that only FFmpeg reads; OpenCV reads MJPEG in AVI without it."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for number in range(20):
        writer.write(picture(number * 10))
    writer.release()
    return path


def write_images(folder, names):
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), picture(number * 10))
    return folder


def frames_of(**config) -> list[Frame]:
    with open_source(SourceSettings(**config)) as source:
        return list(source)


def values(frames) -> list[int]:
    """Which of the pictures written each frame is."""
    return [round(frame.image.mean() / 10) for frame in frames]


# --- files


def test_a_video_gives_every_frame_once_in_order_with_its_time(tmp_path):
    frames = frames_of(uri=str(write_video(tmp_path / "v.avi", 20)), start=START)
    assert values(frames) == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))
    assert [frame.captured_us for frame in frames] == [START_US + 100_000 * number for number in range(20)]
    assert frames[0].image.shape == (48, 64, 3) and frames[0].image.dtype == np.uint8


def write_transport_stream(path, count: int, *, fps: float = 25.0) -> bytes:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), fps, (64, 48))
    for number in range(count):
        writer.write(picture(number % 25 * 10))
    writer.release()
    return path.read_bytes()


def test_a_joined_recording_whose_clock_runs_back_goes_on_and_is_not_damaged(tmp_path, caplog):
    recording = write_transport_stream(tmp_path / "one.ts", 100)
    (tmp_path / "joined.ts").write_bytes(recording * 2)
    clock = CaptureClock(wall_ns=lambda: 10**18, monotonic_ns=lambda: 0)
    began_s = time.monotonic()
    with open_source(SourceSettings(uri=str(tmp_path / "joined.ts")), clock=clock) as source:
        times = [frame.captured_us for frame in source]
    assert time.monotonic() - began_s < 3
    assert 198 <= len(times) <= 200
    assert np.diff(times).tolist() == pytest.approx([40_000] * (len(times) - 1), abs=1)
    assert times[-1] == pytest.approx(10**15, abs=100_000)
    assert "damaged" not in caplog.text


def test_a_recording_whose_clock_leaps_goes_on_and_is_not_damaged(tmp_path, caplog):
    recording = write_transport_stream(tmp_path / "one.ts", 200, fps=2)
    third = len(recording) // 188 // 3 * 188
    (tmp_path / "joined.ts").write_bytes(recording[:third] + recording[2 * third :])
    frames = frames_of(uri=str(tmp_path / "joined.ts"), start=START)
    assert 100 < len(frames) < 160
    assert max(np.diff([frame.captured_us for frame in frames])) <= 10_500_000
    assert frames[-1].captured_us - START_US < 85_000_000
    assert "damaged" not in caplog.text


def test_a_file_of_another_kind_may_pause():
    leaping, pausing = (Positions(40_000, may_leap=may) for may in (True, False))
    reported = [0, 40_000, 3_600_000_000, 3_600_040_000]
    assert [leaping.next(at) for at in reported] == [0, 40_000, 80_000, 120_000]
    assert [pausing.next(at) for at in reported] == reported


def test_a_frame_that_is_late_or_has_no_time_follows_the_one_before():
    positions = Positions(40_000, may_leap=True)
    assert [positions.next(at) for at in (0, 80_000, 40_000, 0, 200_000)] == [0, 80_000, 120_000, 160_000, 200_000]


def test_without_a_start_a_file_ends_now(tmp_path):
    clock = CaptureClock(wall_ns=lambda: 1234 * 10**9, monotonic_ns=lambda: 0)
    with open_source(SourceSettings(uri=str(write_video(tmp_path / "v.avi", 2))), clock=clock) as source:
        assert [frame.captured_us for frame in source] == [1234 * 10**6 - 100_000, 1234 * 10**6]


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_no_frame_of_a_loop_is_of_the_future(tmp_path, kind):
    if kind == "video":
        uri = write_video(tmp_path / "v.avi", 3)
    else:
        uri = write_images(tmp_path / "f", ["0.png", "1.png", "2.png"])
    with open_source(SourceSettings(uri=str(uri), loop=True)) as source:
        for _ in range(12):
            assert source.read(5).captured_us <= time.time_ns() // 1000


def test_a_start_before_1970_is_refused(tmp_path):
    start = datetime.datetime(1969, 1, 1, tzinfo=datetime.timezone.utc)
    with pytest.raises(SettingsError, match=r"source\.start"):
        open_source(SourceSettings(uri=str(write_video(tmp_path / "v.avi", 2)), start=start))


def test_a_frame_rate_in_the_settings_overrides_the_files(tmp_path):
    frames = frames_of(uri=str(write_video(tmp_path / "v.avi", 3)), start=START, fps=4)
    assert [frame.captured_us - START_US for frame in frames] == [0, 250_000, 500_000]


def test_real_pedestrians_on_video(real_data):
    frames = frames_of(uri=str(real_data / "vtest.avi"), max_fps=1, start=START)
    assert len(frames) == 80  # 795 frames, 10 a second
    assert frames[-1].captured_us - START_US == pytest.approx(79_000_000, abs=1000)
    assert frames[0].image.shape == (576, 768, 3)


def test_images_come_in_natural_order(tmp_path):
    folder = write_images(tmp_path / "f", ["a10.png", "a2.png", "a1.png", "b1.png", "A3.png"])
    (folder / "notes.txt").write_text("no image")
    frames = frames_of(uri=str(folder), start=START)
    assert values(frames) == [2, 1, 4, 0, 3]
    assert [frame.captured_us - START_US for frame in frames] == [0, 40_000, 80_000, 120_000, 160_000]


def test_an_unreadable_image_is_counted_and_left_out_and_the_numbers_of_others_stay(tmp_path):
    folder = write_images(tmp_path / "f", ["0.png", "1.png", "2.png"])
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    with open_source(SourceSettings(uri=str(folder), start=START)) as source:
        frames = list(source)
        assert source.stats.unreadable == 1
    assert [frame.index for frame in frames] == [0, 2]
    assert frames[1].captured_us == START_US + 80_000


def test_what_other_systems_leave_in_a_folder_takes_no_number_and_no_time(tmp_path):
    folder = write_images(tmp_path / "f", ["1.png", "2.png"])
    (folder / "._1.png").write_bytes(b"\0\5\x16\7Mac OS X")
    with open_source(SourceSettings(uri=str(folder), start=START)) as source:
        assert [frame.captured_us - START_US for frame in source] == [0, 40_000]
        assert source.stats.unreadable == 0


def test_videos_beside_the_images_of_a_folder_are_told(tmp_path, caplog):
    folder = write_images(tmp_path / "f", ["1.png", "2.png"])
    write_video(folder / "3.avi", 3)
    assert values(frames_of(uri=str(folder))) == [0, 1]
    assert "its images are played, and its 1 videos are not" in caplog.text


def test_one_image_is_a_folder_of_one(tmp_path):
    folder = write_images(tmp_path / "f", ["7.png", "8.png"])
    assert values(frames_of(uri=str(folder / "8.png"))) == [1]


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_a_loop_goes_on_in_numbers_and_times(tmp_path, kind):
    if kind == "video":
        uri, step_us = write_video(tmp_path / "v.avi", 3), 100_000
    else:
        uri, step_us = write_images(tmp_path / "f", ["0.png", "1.png", "2.png"]), 40_000
    with open_source(SourceSettings(uri=str(uri), loop=True, start=START)) as source:
        frames = [source.read(5) for _ in range(8)]
    assert values(frames) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert [frame.index for frame in frames] == list(range(8))
    assert [frame.captured_us - START_US for frame in frames] == [step_us * number for number in range(8)]


def test_a_looped_file_that_has_gone_is_told(tmp_path):
    video = write_video(tmp_path / "v.avi", 3)
    with open_source(SourceSettings(uri=str(video), loop=True, queue=1)) as source:
        source.read(5)
        video.unlink()
        with pytest.raises(SourceError, match="is now missing or changed"):
            for _ in range(100):
                source.read(5)


def test_a_looped_folder_that_has_gone_is_told(tmp_path):
    folder = write_images(tmp_path / "f", ["0.png", "1.png", "2.png"])
    with open_source(SourceSettings(uri=str(folder), loop=True, queue=1)) as source:
        source.read(5)
        for image in folder.iterdir():
            image.unlink()
        with pytest.raises(SourceError, match="is now missing or changed"):
            for _ in range(100):
                source.read(5)


def test_stride_and_rate_thin_a_file(tmp_path):
    video = str(write_video(tmp_path / "v.avi", 20))
    assert values(frames_of(uri=video, stride=7)) == [0, 7, 14]
    assert values(frames_of(uri=video, max_fps=2.5)) == [0, 4, 8, 12, 16]
    assert [frame.index for frame in frames_of(uri=video, stride=3, max_fps=2)] == [
        0,
        6,
        12,
        15,
    ]  # due at 0, 0.5, 1, 1.5 s


def test_a_slow_reader_loses_nothing_of_a_file_and_little_is_decoded_ahead(tmp_path):
    with open_source(SourceSettings(uri=str(write_video(tmp_path / "v.avi", 20)), queue=2)) as source:
        first = source.read(5)
        while source.stats.frames < 4:  # one taken, two queued, one in hand
            threading.Event().wait(0.001)
        threading.Event().wait(0.05)
        assert source.stats.frames == 4
        assert values([first, *source]) == list(range(20))
        assert source.stats.dropped == 0


def test_in_real_time_a_file_is_played_as_a_camera_would(tmp_path):
    with open_source(SourceSettings(uri=str(write_video(tmp_path / "v.avi", 10, fps=20)), realtime=True)) as source:
        assert source.live
        first = source.read(5)
        while not source.stats.dropped:
            threading.Event().wait(0.001)
        latest = list(source)
    assert latest[-1].index == 9 and first.index == 0
    assert 1 + len(latest) + source.stats.dropped == 10 == source.stats.frames


def test_stopping_ends_a_file_and_discards_what_is_queued(tmp_path):
    source = open_source(SourceSettings(uri=str(write_video(tmp_path / "v.avi", 20)), loop=True))
    source.read(5)
    source.stop()
    assert source.ended and source.read(5) is None and list(source) == []
    source.stop()


# --- bad input


def bad_inputs(tmp_path):
    (tmp_path / "text.avi").write_text("no video at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_video(tmp_path / "none.avi", 0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").mkdir()
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.avi", 1)
    (tmp_path / "two videos").mkdir()
    for name in ("b.avi", "a.avi"):
        write_video(tmp_path / "two videos" / name, 1)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "1.jpg").write_bytes(b"\xff\xd8\xff")
    return {
        "missing.avi": "does not exist",
        "text.avi": "is not a video",
        "empty.mp4": r"\(0 bytes\) is not a video",
        "none.avi": "no frame",
        "folder": "no image in the folder",
        "videos": "It holds a video: --source .*/videos/a.avi",
        "two videos": r"2 videos.* for video in '.*/two videos'/\*.avi; do reid-edge run .*\$video",
        "torn": "none of 1 image",
    }


@pytest.mark.parametrize(
    "name", ["missing.avi", "text.avi", "empty.mp4", "none.avi", "folder", "videos", "two videos", "torn"]
)
def test_what_holds_no_frame_is_refused_at_once(tmp_path, name):
    message = bad_inputs(tmp_path)[name]
    before = threading.active_count()
    with pytest.raises(SourceError, match=message):
        open_source(SourceSettings(uri=str(tmp_path / name)))
    assert threading.active_count() == before


@NEEDS_FFMPEG
def test_a_truncated_file_is_refused_with_the_reason_of_ffmpeg(tmp_path, capfd):
    whole, cut = write_mp4(tmp_path / "whole.mp4"), tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"has no frame \(moov atom not found\)\. Try playing it"):
        open_source(SourceSettings(uri=str(cut)))
    assert "moov" not in capfd.readouterr().err


@NEEDS_FFMPEG
@pytest.mark.parametrize("name", ["12:30:00.mp4", "concat:a.mp4", "file:b.ts"])
def test_a_name_with_a_colon_is_a_name(tmp_path, monkeypatch, name):
    write_mp4(tmp_path / "v.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(frames_of(uri=name)) == 20


def test_a_device_file_or_an_unknown_scheme_is_refused():
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        open_source(SourceSettings(uri="/dev/null"))
    with pytest.raises(SourceError, match="known: http, https"):
        open_source(SourceSettings(uri="concat://a|b"))


def test_options_for_files_are_refused_for_cameras():
    with pytest.raises(SourceError, match="leave out loop, realtime"):
        open_source(SourceSettings(uri="rtsp://127.0.0.1:1/x", loop=True, realtime=True))


def test_gstreamer_without_gstreamer_says_where_to_get_it():
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(SourceError, match=r"built without GStreamer.*JetPack"):
        open_source(SourceSettings(uri="gst:videotestsrc ! appsink"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stride", 0),
        ("max_fps", 0),
        ("start", "2026-05-01T12:00:00"),
        ("backoff_s", -1),
        ("fourcc", "MJPEG"),
        ("url", "x"),
    ],
)
def test_settings_are_checked_by_name(key, value):
    with pytest.raises(msgspec.ValidationError, match=key):
        msgspec.convert({"uri": "x.avi", key: value}, SourceSettings)


# --- parts


@pytest.mark.parametrize(("fps", "limit"), [(30, 10), (25, 10), (29.97, 15), (10, 25), (60, 7)])
def test_thinning_holds_the_rate_on_average(fps, limit):
    thinning = Thinning(1, limit)
    taken = [index for index in range(6000) if thinning.takes(index, round(index * 1e6 / fps))]
    assert len(taken) == pytest.approx(6000 / fps * min(limit, fps), rel=0.01)


def test_a_file_is_paced_by_no_clock_that_can_be_set(tmp_path):
    """The time of day goes back by a year while a file plays in a loop."""
    wall = iter([10**18])
    clock = CaptureClock(wall_ns=lambda: next(wall, 10**18 - 365 * 86400 * 10**9), monotonic_ns=time.monotonic_ns)
    video = write_video(tmp_path / "v.avi", 5)
    with open_source(SourceSettings(uri=str(video), loop=True, fps=50), clock=clock) as source:
        times = [source.read(5).captured_us for _ in range(12)]
    assert np.diff(times).tolist() == [20_000] * 11


def test_thinning_takes_one_frame_after_a_long_pause():
    thinning = Thinning(1, 10)
    times = [0, 50_000, 9_000_000, 9_010_000, 9_050_000, 9_100_000]
    assert [thinning.takes(index, time) for index, time in enumerate(times)] == [True, False, True, False, False, True]


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://admin:s3cret@cam/stream",
        "rtsp://admin:p@s/s3cret@cam/stream",
        "rtsp:/admin:s3cret@cam/stream",
        "http://cam/video?channel=1&user=x&password=s3cret",
        "http://cam/video?s3cret=1&pwd=s3cret".replace("s3cret=1", "a=1"),
        "gst:rtspsrc location=rtsp://admin:s3cret@cam/1 ! decodebin ! appsink",
        'gst:rtspsrc location="rtsp://cam/1" user-id=admin user-pw="s3cret" ! appsink',
    ],
)
def test_no_password_is_shown(uri):
    shown = redacted(uri)
    assert "s3cret" not in shown and "***" in shown


def test_what_is_no_secret_is_shown():
    assert redacted("rtsp://cam:554/live/1?channel=2&subtype=0") == "rtsp://cam:554/live/1?channel=2&subtype=0"
    assert redacted("rtsp://admin:x@cam:554/live") == "rtsp://***@cam:554/live"


def test_the_slot_of_a_camera_keeps_the_latest_frame():
    buffer = FrameBuffer(1, overwrite=True)
    for index in range(5):
        assert buffer.put(Frame(picture(0), index, index))
    assert buffer.get(0).index == 4 and buffer.dropped == 4
    assert buffer.get(0) is None and not buffer.ended


def test_an_error_comes_after_the_frames_before_it():
    buffer = FrameBuffer(4, overwrite=False)
    buffer.put(Frame(picture(0), 0, 0))
    buffer.finish(SourceError("gone"))
    assert not buffer.ended and buffer.get(0).index == 0
    with pytest.raises(SourceError, match="gone"):
        buffer.get(0)
