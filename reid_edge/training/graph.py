"""Record a step once and replay it: on a GPU the step of a small network is bound by the launching of its kernels.

What is recorded must read and write only tensors that stay where they are, ask the device nothing, and not depend on
Python values that change.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from reid_edge.errors import TrainingError

_log = logging.getLogger(__name__)

#: Steps before the recording: libraries choose their algorithms and allocate their workspaces in these.  They are
#: real steps of the run, so there is no state to put back.
WARM_UP_STEPS = 3

Work = Callable[..., None]


class Recorder(Protocol):
    """Records work on a device, to replay it."""

    def aside(self) -> AbstractContextManager[None]:
        """Return a context in which work runs before it is recorded."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record work without doing it, and return the function that does it."""


class CudaGraphs:
    """Records as CUDA graphs.

    Warm-up and recording use one stream of their own, as PyTorch's notes on CUDA graphs ask.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Run the block on the stream that will record."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record; while recording nothing runs."""
        graph = torch.cuda.CUDAGraph()
        # Threads that decode images may use the device meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


class Repeated:
    """Work that is repeated on inputs of the same shapes.

    Args:
        work: Function of tensors or None; it leaves its results in tensors of its own.
        device: Device that the inputs are moved to.
        recorder: Recorder of the work; None: nothing is recorded, and inputs may change their shapes.
        required: Raise an error if the work cannot be recorded; otherwise it runs unrecorded, with a warning.
    """

    def __init__(self, work: Work, device: torch.device, recorder: Recorder | None, *, required: bool = False) -> None:
        self._work = work
        self._device = device
        self._recorder = recorder
        self._required = required
        self._inputs: list[Tensor | None] | None = None
        self._warmed = 0
        self._replay: Callable[[], None] | None = None

    @property
    def recorded(self) -> bool:
        """True if the next call replays a recording."""
        return self._replay is not None

    def forget(self, *, shapes: bool = False) -> None:
        """Drop the recording, after a change of what the work does.

        Args:
            shapes: Also take inputs of other shapes from now on.
        """
        self._replay = None
        self._inputs = None if shapes else self._inputs
        self._warmed = 0

    def __call__(self, *inputs: Tensor | None) -> None:
        """Do the work once.

        Raises:
            TrainingError: The shapes differ from those before, or the work is ``required`` to be recorded and cannot
                be.
        """
        if self._recorder is None:
            self._work(*(None if each is None else each.to(self._device, non_blocking=True) for each in inputs))
            return
        self._take(inputs)
        if self._replay is None and self._warmed >= WARM_UP_STEPS:
            self._record(self._recorder)
        if self._replay is not None:
            self._replay()
            return
        self._warmed += 1
        with self._recorder.aside() if self._recorder else contextlib.nullcontext():
            self._work(*(self._inputs or ()))

    def _take(self, inputs: tuple[Tensor | None, ...]) -> None:
        if self._inputs is None:
            self._inputs = [None if each is None else torch.empty_like(each, device=self._device) for each in inputs]
        for own, given in zip(self._inputs, inputs, strict=True):
            if (own is None) != (given is None) or (own is not None and given is not None and own.shape != given.shape):
                raise TrainingError(
                    f"a recorded step takes inputs of shapes {_shapes(self._inputs)}, got {_shapes(inputs)}; "
                    "use --set run.graph=off, or batches of one size."
                )
            if own is not None and given is not None:
                own.copy_(given, non_blocking=True)

    def _record(self, recorder: Recorder) -> None:
        try:
            self._replay = recorder.record(functools.partial(self._work, *(self._inputs or ())))
        except RuntimeError as error:
            if self._required:
                raise TrainingError(
                    f"this step cannot be recorded as a CUDA graph ({error}); use --set run.graph=off."
                ) from error
            _log.warning("This step cannot be recorded as a CUDA graph and runs without, slower: %s", error)
            self._recorder = None


def _shapes(tensors: list[Tensor | None] | tuple[Tensor | None, ...]) -> str:
    return ", ".join("none" if each is None else "×".join(map(str, each.shape)) for each in tensors)
