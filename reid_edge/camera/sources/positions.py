"""Positions of a video's frames, from the times that its file reports, also where recordings were joined."""

from __future__ import annotations

from pathlib import Path

import cv2

from reid_edge.camera.sources.capture import grab, reported_position_us

#: A reported time that is ahead by more than this is another clock (FFmpeg's ``dts_delta_threshold``).
_JUMP_US = 10_000_000
#: A reported time that is behind by more than this, or by so many frames, likewise; frames may be out of order by less.
_BACK_US, _BACK_FRAMES = 1_000_000, 16
#: Sizes of a packet of MPEG-TS: plain, of a camcorder, with error correction.
_PACKETS = (188, 192, 204)
_SYNC = 0x47
_PROGRAM_STREAM = b"\0\0\1\xba"


class Positions:
    """Times of frames from the first one, which always grow.

    Where recordings were joined, the reported time starts anew: it runs back, or leaps.  Positions go on there as if
    the next frame had followed in time.

    Args:
        step_us: Time between frames whose time is not reported.
        may_leap: Take a leap forward for another clock, not for a pause.
    """

    def __init__(self, step_us: int, *, may_leap: bool) -> None:
        self._step_us = step_us
        self._back_us = max(_BACK_US, _BACK_FRAMES * step_us)
        self._leap_us = _JUMP_US + step_us if may_leap else None
        self._shift_us = 0
        self._position_us: int | None = None

    def next(self, reported_us: int) -> int:
        """Return the position of the next frame; ``reported_us`` is 0 if none is reported."""
        if self._position_us is None:
            self._position_us = 0
            return 0
        due_us = self._position_us + self._step_us
        at_us = reported_us + self._shift_us
        if reported_us and self._is_other_clock(at_us - self._position_us):
            self._shift_us, at_us = due_us - reported_us, due_us
        self._position_us = at_us if reported_us and at_us > self._position_us else due_us
        return self._position_us

    def _is_other_clock(self, ahead_us: int) -> bool:
        return ahead_us < -self._back_us or (self._leap_us is not None and ahead_us > self._leap_us)


def may_leap(path: Path) -> bool:
    """Tell whether a file is an MPEG transport or program stream, whose clock may start anew at any place."""
    with path.open("rb") as file:
        head = file.read(5 * max(_PACKETS))
    return head.startswith(_PROGRAM_STREAM) or any(
        _has_packets(head, start, size) for size in _PACKETS for start in range(size)
    )


def _has_packets(head: bytes, start: int, size: int) -> bool:
    marks = head[start::size]
    return len(marks) >= 3 and set(marks) == {_SYNC}


def measured_length(path: Path, step_us: int) -> tuple[int, int]:
    """Return number of frames and position of the last one, without decoding; 0, 0 where OpenCV cannot tell.

    Such a file's header says nothing of this, and the difference of its first and last time is wrong if its clock
    started anew in between.

    Args:
        path: A transport or program stream.
        step_us: As for :class:`Positions`.
    """
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    positions, count, last_us = Positions(step_us, may_leap=True), 0, 0
    try:
        while grab(capture):
            last_us = positions.next(reported_position_us(capture))
            count += 1
    finally:
        capture.release()
    return count, last_us
