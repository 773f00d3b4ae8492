"""DeepStream's Python module, as far as the example calls it: 40 frames of two people, with tensors on their boxes."""

import ctypes
import time
import types

FRAMES, DIM = 40, 512
START_NS, STEP_NS = time.time_ns() - 60_000_000_000, 250_000_000
NvDsMetaType = types.SimpleNamespace(NVDSINFER_TENSOR_OUTPUT_META=12)


class _Castable:
    @staticmethod
    def cast(data):
        return data


NvDsFrameMeta = NvDsObjectMeta = NvDsUserMeta = NvDsInferTensorMeta = _Castable


class _Node:
    """A list whose end raises StopIteration, as GLists do in Python."""

    def __init__(self, members):
        self.data, self._rest = members[0], members[1:]

    @property
    def next(self):
        if not self._rest:
            raise StopIteration
        return _Node(self._rest)


def _list(members):
    return _Node(members) if members else None


def _user(kind, gie, values):
    buffer = (ctypes.c_float * DIM)(*values)
    tensor = types.SimpleNamespace(unique_id=gie, buffer=buffer)
    return types.SimpleNamespace(base_meta=types.SimpleNamespace(meta_type=kind), user_meta_data=tensor)


def _person(track, frame):
    values = [3.0 if place % 2 == track % 2 else 0.1 for place in range(DIM)]
    users = [_user(99, 2, values), _user(12, 1, values[::-1])]
    if frame % 3 == 0:  # nvinfer leaves some boxes out
        users.append(_user(12, 2, values))
    rect = types.SimpleNamespace(left=100.0 + 400 * track, top=200.0, width=150.0, height=400.0)
    return types.SimpleNamespace(
        object_id=track, confidence=0.9, rect_params=rect, obj_user_meta_list=_list(users), unique_component_id=1
    )


def gst_buffer_get_nvds_batch_meta(number):
    people = [_person(track, number) for track in (1, 2)] if number < FRAMES // 2 else []
    people += [types.SimpleNamespace(object_id=0xFFFFFFFFFFFFFFFF)]
    frame = types.SimpleNamespace(ntp_timestamp=START_NS + number * STEP_NS, obj_meta_list=_list(people))
    return types.SimpleNamespace(frame_meta_list=_list([frame]))


def get_nvds_LayerInfo(tensor, index):
    assert index == 0
    return types.SimpleNamespace(buffer=tensor.buffer)


def get_ptr(buffer):
    return ctypes.addressof(buffer)
