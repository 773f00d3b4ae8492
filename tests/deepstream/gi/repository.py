"""GStreamer, as far as the example calls it: a pipeline that gives its probe one buffer for each frame."""

import types
from pathlib import Path

import pyds


class _Pipeline:
    def __init__(self, text):
        for word in text.split():
            key, _, value = word.partition("=")
            if key == "config-file-path" and value.endswith("nvinfer_secondary.txt"):
                assert Path(value).is_file()
        self._probe = None

    def get_by_name(self, name):
        assert name == "features"
        return self

    def get_static_pad(self, name):
        assert name == "src"
        return self

    def add_probe(self, kind, probe):
        self._probe = probe

    def set_state(self, state):
        for number in range(pyds.FRAMES if state == "playing" else 0):
            assert self._probe(self, types.SimpleNamespace(get_buffer=lambda number=number: number)) == "ok"

    def get_bus(self):
        return self

    def timed_pop_filtered(self, timeout, kinds):
        return types.SimpleNamespace(type=1)


Gst = types.SimpleNamespace(
    init=lambda arguments: None,
    parse_launch=_Pipeline,
    PadProbeReturn=types.SimpleNamespace(OK="ok"),
    PadProbeType=types.SimpleNamespace(BUFFER=1),
    State=types.SimpleNamespace(PLAYING="playing", NULL="null"),
    MessageType=types.SimpleNamespace(EOS=1, ERROR=2),
    CLOCK_TIME_NONE=-1,
)
