"""One optimisation step: augmentation, forward, backward, optimiser, moving average; recorded as a graph on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reid_edge.errors import ResumeError, SettingsError
from reid_edge.system.cpu import cpu_flags
from reid_edge.training import distributed
from reid_edge.training.augment import Augmenter
from reid_edge.training.curriculum import steps_at_size
from reid_edge.training.distributed import synchronise_batch_norms
from reid_edge.training.graph import CudaGraphs, Recorder, Repeated
from reid_edge.training.objective import Objective
from reid_edge.training.optimisation import (
    ModelEma,
    frozen,
    make_optimiser,
    optimiser_state,
    rate,
    restore_optimiser,
    triplet_weight,
)
from reid_edge.training.settings import RunSettings, TrainSettings
from reid_edge.training.teaching import TeachingStaff


class Stepper:
    """Takes the optimisation steps of a run's models.

    The models are moved to the device and changed in place.  Among several processes every process calls the same
    methods in the same order, and gives its own slice of the batch.

    Attributes:
        models: Models that are trained.
        augmenter: Makes training images of pixels.
        evaluated: Models that are evaluated and saved: the moving average if ``run.ema`` is on, else ``models``.
        optimiser: Optimiser of torch.
        device: Device of models and batches.

    Args:
        models: Models with ``network`` and ``head``; images → (features, logits).
        objective: Loss of a step.
        augmenter: Makes training images of pixels.
        settings: The run's settings.
        device: Device to train on; see :func:`reid_edge.training.distributed.pick_device`.
        steps_per_epoch: Whole batches of an epoch.
        staff: Teachers of the run; None: there are none.
        recorder: Recorder, for tests; otherwise ``run.graph`` decides.

    Raises:
        SettingsError: ``run.graph`` is ``on`` where there is no GPU, or several processes; or the batch cannot be
            shared out evenly.
    """

    def __init__(
        self,
        models: nn.ModuleList,
        objective: Objective,
        augmenter: Augmenter,
        settings: TrainSettings,
        *,
        device: torch.device,
        steps_per_epoch: int,
        staff: TeachingStaff | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        _check_share(settings.batch.size)
        recorder = recorder or _recorder(settings.run, device)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # all batches have one shape
        self._half = half_precision(settings.run, device)
        self._format = memory_format(device, half=self._half)
        self.models = models.to(device)
        distributed.share_state(models)
        synchronise_batch_norms(models, device)
        models.to(memory_format=self._format)  # type: ignore[call-overload]
        self._objective = objective
        self._staff = staff
        self.augmenter = augmenter
        self._settings = settings
        self.device = device
        self._dtype = next(models.parameters()).dtype
        self._steps_per_epoch = steps_per_epoch
        self._rate, self._triplet, self._new_weight = (_Setting(device) for _ in range(3))
        self.optimiser = make_optimiser(models.parameters(), settings.optimiser, self._rate.tensor)
        self._ema = ModelEma(models, settings.run.ema) if settings.run.ema else None
        self.evaluated = self.models if self._ema is None else self._ema.module
        self._frozen: bool | None = None
        self._names: tuple[str, ...] = ()
        self._sums = torch.zeros(0, dtype=torch.float64, device=device)
        self._counted = 0
        self._work = Repeated(self._step, device, recorder, required=settings.run.graph == "on")

    @property
    def recorded(self) -> bool:
        """True if the next step of the same stage replays a recording."""
        return self._work.recorded

    def __call__(
        self,
        pixels: Tensor,
        targets: Tensor,
        numbers: Tensor,
        partners: Tensor | None,
        step: int,
        known: Tensor | None = None,
    ) -> None:
        """Take one step; returns before the device has done it.

        Args:
            pixels: N×3×h×w uint8, RGB: this process's slice of the batch.
            targets: N int64, or N×A for attributes.
            numbers: N×columns float32, uniform on [0, 1), for the augmentation.
            partners: N×3×h×w uint8, images that patches are taken from; None if the augmentation needs none.
            step: Steps done before this one.
            known: N×T×D float16, what T teachers make of these images, if that was computed before.
        """
        self.prepare(step)
        self._work(pixels, targets, numbers, partners, known)
        self._counted += 1

    def prepare(self, step: int) -> None:
        """Set the values that depend on the step: rate, weights of losses, and frozen layers."""
        settings, schedule = self._settings, self._settings.schedule
        self._rate.set(rate(schedule, settings.optimiser.learning_rate, step, self._steps_per_epoch))
        self._triplet.set(triplet_weight(settings.loss, step // self._steps_per_epoch))
        if self._ema:
            # Batch-norm statistics of another input size are not those of this one: the average begins anew.
            self._new_weight.set(self._ema.new_weight(steps_at_size(settings, step, self._steps_per_epoch)))
        self._enter(frozen=frozen(schedule, step, self._steps_per_epoch))

    def augment_with(self, augmenter: Augmenter) -> None:
        """Take another augmentation, for inputs of another size, from the next step on."""
        self.augmenter = augmenter
        self._work.forget(shapes=True)

    def images(self, pixels: Tensor, numbers: Tensor, partners: Tensor | None) -> Tensor:
        """Return a batch's training images, in the models' dtype and layout; all on the device."""
        images = self.augmenter(pixels, numbers, partners)
        return images.to(self._dtype, memory_format=self._format)

    def gradients(self, images: Tensor, targets: Tensor, known: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the parameters' gradients, which replace the last ones, and return the objective's parts."""
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            outputs = [model(images) for model in self.models]
        taught = self._staff(images, known) if self._staff else None
        parts = self._objective(outputs, targets, self._triplet.tensor, taught)
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        return parts

    @torch.no_grad()
    def update(self, parts: dict[str, Tensor]) -> None:
        """Average gradients over processes, update weights and their moving average, and add up the parts."""
        values = torch.stack([each.detach().float() for each in parts.values()])
        distributed.average([values, *(each.grad for each in self.models.parameters() if each.grad is not None)])
        self.optimiser.step()
        if self._ema:
            self._ema.update(self._new_weight.tensor)
        if not self._names:
            self._names = tuple(parts)
            self._sums = torch.zeros(len(parts), dtype=torch.float64, device=self.device)
        self._sums.add_(values)

    def read(self) -> dict[str, float]:
        """Return means of the objective's parts over the steps since the last call, and over processes.

        Waits for the device.  The result is empty if there was no step.
        """
        if not self._counted:
            return {}
        means = dict(zip(self._names, (self._sums / self._counted).tolist(), strict=True))
        self._sums.zero_()
        self._counted = 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return all that resuming needs besides the step: models, optimiser, moving average, sums not yet read.

        The state holds the tensors themselves: save or copy it before the next step.  ``torch.load`` reads it with
        ``weights_only=True``.  It is the same in every process.
        """
        return {
            "learners": self.models.state_dict(),
            "optimiser": optimiser_state(self.optimiser),
            "average": self._ema.module.state_dict() if self._ema else {},
            "sums": dict(zip(self._names, self._sums.tolist(), strict=True)),
            "counted": self._counted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a saved state, on any device, into the tensors that are there.

        Raises:
            ResumeError: The state does not fit these models and this optimiser.
        """
        try:
            self.models.load_state_dict(state["learners"])
            restore_optimiser(self.optimiser, state["optimiser"])
            if self._ema:
                self._ema.module.load_state_dict(state["average"])
            sums = torch.tensor(list(state["sums"].values()), dtype=torch.float64, device=self.device)
            self._names, self._sums, self._counted = tuple(state["sums"]), sums, int(state["counted"])
        except (KeyError, RuntimeError) as error:
            raise ResumeError(
                f"the saved state does not fit this run's networks and optimiser ({error}); "
                "resume with the release and the settings that it was saved with, or start anew."
            ) from error
        self._work.forget()

    def _step(
        self, pixels: Tensor, targets: Tensor, numbers: Tensor, partners: Tensor | None, known: Tensor | None
    ) -> None:
        self.update(self.gradients(self.images(pixels, numbers, partners), targets, known))

    def _enter(self, *, frozen: bool) -> None:
        # Checked at each step, because an evaluation in between leaves the models in evaluation mode.
        if frozen == self._frozen and all(
            each.training and _network(each).training is not frozen for each in self.models
        ):
            return
        # As torchreid's open_specified_layers: a frozen network keeps its batch norms' statistics too.
        self.models.train()
        for model in self.models:
            _network(model).train(not frozen).requires_grad_(not frozen)
        if frozen != self._frozen:
            self._frozen = frozen
            self.optimiser.zero_grad(set_to_none=True)
            self._work.forget()


class _Setting:
    """A number in the device's memory; writing the value that is there already costs nothing."""

    def __init__(self, device: torch.device) -> None:
        self.tensor = torch.zeros((), dtype=torch.float32, device=device)
        self._value = 0.0

    def set(self, value: float) -> None:
        if value != self._value:
            self.tensor.fill_(value)
            self._value = value


def half_precision(run: RunSettings, device: torch.device) -> bool:
    """Return True if the forward pass is to compute in bfloat16, whose range needs no loss scaling."""
    return run.precision == "bfloat16" or (run.precision == "auto" and (device.type == "cuda" or cpu_has_bfloat16()))


def cpu_has_bfloat16() -> bool:
    """Return True if this CPU multiplies bfloat16 numbers: without AVX512-BF16 or AMX they only cost conversions."""
    flags = cpu_flags()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def memory_format(device: torch.device, *, half: bool) -> torch.memory_format:
    """Return the layout of images and activations.

    Channels last is a quarter faster than channels first on a CPU (benchmarks/training.py), and is what cuDNN's
    half-precision kernels take without transposing; its single-precision depthwise kernels want channels first.
    torch's batch norm of channels last on a CPU sums in single precision: 2e-6 relative error instead of 6e-8.
    """
    return torch.channels_last if half or device.type == "cpu" else torch.contiguous_format


def _recorder(run: RunSettings, device: torch.device) -> Recorder | None:
    alone, cuda = distributed.world() == 1, device.type == "cuda"
    if run.graph == "on" and not (alone and cuda):
        where = "the device is a CPU" if not cuda else f"there are {distributed.world()} processes"
        raise SettingsError(
            f"run.graph is 'on', but {where}: a step is recorded on one GPU only; use --set run.graph=auto."
        )
    return CudaGraphs(device) if run.graph != "off" and alone and cuda else None


def _check_share(size: int) -> None:
    if size % distributed.world():
        raise SettingsError(
            f"batch.size is {size}, which {distributed.world()} processes cannot share evenly; "
            f"use a multiple of {distributed.world()}."
        )


def _network(model: nn.Module) -> nn.Module:
    network = model.network
    assert isinstance(network, nn.Module)
    return network
