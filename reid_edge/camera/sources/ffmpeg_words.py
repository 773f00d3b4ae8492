"""FFmpeg's own words about a failure, which OpenCV does not pass on."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

#: Highest level of FFmpeg's messages that is kept: errors.
_ERROR = 16
_LONGEST = 1024
_MOST_LINES = 8
#: The part of FFmpeg that a message is of, and its address in memory.
_ORIGIN = re.compile(r"^\[[^\]]*? @ 0x[0-9a-f]+\]\s*")
#: With these, OpenCV prints FFmpeg's messages itself.
_OPENCV_PRINTS = ("OPENCV_FFMPEG_DEBUG", "OPENCV_FFMPEG_LOGLEVEL")

_Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_lines: list[str] = []
_listening = threading.Lock()


@contextlib.contextmanager
def ffmpeg_words() -> Iterator[list[str]]:
    """Yield a list that gets FFmpeg's error messages of this block, in place of standard error.

    The list stays empty where this OpenCV has no FFmpeg in a library of its own, or another thread listens.
    """
    library = _library()
    if library is None or any(name in os.environ for name in _OPENCV_PRINTS) or not _listening.acquire(blocking=False):
        yield []
        return
    try:
        _lines.clear()
        library.av_log_set_callback(_keep)
        yield _lines
    finally:
        _silence()
        _listening.release()


def as_reason(words: Sequence[str]) -> str:
    """Join FFmpeg's messages to one text, each once; "" for none."""
    return "; ".join(dict.fromkeys(words)).rstrip(".")


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Return the FFmpeg that OpenCV has loaded; None if there is none, or several."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        paths = {line.split(maxsplit=5)[5] for line in maps if "/libavutil" in line}
        library = ctypes.CDLL(paths.pop()) if len(paths) == 1 else None
        if library is not None:
            library.av_log_set_callback.argtypes = [ctypes.c_void_p]
            library.av_log_format_line2.argtypes = [
                *(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p),
                *(ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_int)),
            ]
            atexit.register(_silence)  # no thread of FFmpeg may call Python once the interpreter ends
    except (OSError, AttributeError):
        return None
    return library


def _silence() -> None:
    library = _library()
    if library is not None:
        library.av_log_set_callback(ctypes.cast(library.av_log_default_callback, ctypes.c_void_p))


def _kept(origin: int, level: int, form: bytes, values: int) -> None:
    """Take a message: FFmpeg's callback, called by any of its threads."""
    library = _library()
    if library is None or level > _ERROR or len(_lines) >= _MOST_LINES:
        return
    line, prefix = ctypes.create_string_buffer(_LONGEST), ctypes.c_int(1)
    library.av_log_format_line2(origin, level, form, values, line, _LONGEST, ctypes.byref(prefix))
    if text := _ORIGIN.sub("", line.value.decode(errors="replace")).strip():
        _lines.append(text)


#: Referred to as long as the process lives: FFmpeg may call it.
_keep = _Callback(_kept)
