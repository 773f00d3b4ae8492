"""A CUDA graph's rules on a CPU: kernels are recorded with the addresses they use, and replayed without any Python."""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: What makes a capture on a GPU fail: it asks the device for a value, or brings one in from Python.
FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "equal.default", "is_nonzero")


class NotCapturable(RuntimeError):
    pass


class _Log(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in FORBIDDEN):
            raise NotCapturable(f"{func} inside a recorded step")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out


def _tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _address(tensor):
    return tensor.untyped_storage().data_ptr()


class SoftwareGraph:
    """Records every operation, and at a replay does them again on the very tensors of the recording."""

    def __init__(self):
        self.recordings = 0
        self.replays = 0

    def aside(self):
        return contextlib.nullcontext()

    def record(self, work):
        self.recordings += 1
        with _Log() as log:
            work()
        fresh = True  # unlike a GPU, recording has done the work: the replay that follows has nothing to do

        def replay():
            nonlocal fresh
            self.replays += 1
            if not fresh:
                with torch.no_grad():
                    for call in log.calls:
                        _again(*call)
            fresh = False

        return replay


def _again(func, args, kwargs, out):
    given = {_address(each) for each in _tensors((args, kwargs))}
    for recorded, new in zip(_tensors(out), _tensors(func(*args, **kwargs)), strict=True):
        if _address(recorded) not in given:  # else a view, or written in place
            recorded.copy_(new)
