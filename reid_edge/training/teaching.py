"""Teachers at work: their features of all training images, computed once, or of each batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_edge.errors import SettingsError
from reid_edge.files import write_whole
from reid_edge.progress import Notify
from reid_edge.training.augment import centre, normalise, source_size
from reid_edge.training.distillation import Taught
from reid_edge.training.pixels import Images, open_pixels
from reid_edge.training.settings import AugmentSettings, TrainSettings
from reid_edge.training.task import TrainingData
from reid_edge.training.teachers import NetworkTeacher, TableTeacher, Teacher, check_normalisation
from reid_edge.types import PerChannel, Size

#: Images that go through a teacher at once.
_BATCH = 128
#: Key of the metadata of kept features.
_KEY = "reid_edge_teachers"


@dataclass(frozen=True, eq=False)
class KnownFeatures:
    """The teachers' features of all training images.

    Attributes:
        features: N×T×D float16, on the CPU; D is that of the teacher with the longest.
        key: Hash of all that decides them.
    """

    features: Tensor
    key: str

    def save(self, path: Path) -> None:
        """Write them, whole or not at all, unless the file has them already.

        Raises:
            OutputError: The file cannot be written.
        """
        if self.kept(path, self.key) is None:
            write_whole(path, safetensors.torch.save({"features": self.features}, {_KEY: self.key}))

    @classmethod
    def kept(cls, path: Path, key: str) -> KnownFeatures | None:
        """Read what :meth:`save` wrote; None if there is nothing with this key, or the file is damaged."""
        if _kept_key(path) != key:
            return None
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                return cls(file.get_tensor("features").clone(), key)
        except (safetensors.SafetensorError, OSError):
            return None


def _kept_key(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return (file.metadata() or {}).get(_KEY)
    except (safetensors.SafetensorError, OSError):
        return None


def _key(teachers: Sequence[Teacher], fingerprint: str, *, half: bool) -> str:
    each = [
        [one.sha256, *([one.info.size, one.info.mean, one.info.std] if isinstance(one, NetworkTeacher) else [])]
        for one in teachers
    ]
    return hashlib.sha256(msgspec.json.encode([each, fingerprint, half])).hexdigest()


class TeachingStaff:
    """Teachers at work: says what they make of a batch.

    Args:
        teachers: At least one.
        settings: The run's settings.
        device: Device of the batches.
        half: Compute in bfloat16.
        known: The teachers' features of all training images; None: they see each batch as the network that learns
            does (``distill.view`` is ``same``).
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        settings: TrainSettings,
        device: torch.device,
        *,
        half: bool,
        known: KnownFeatures | None,
    ) -> None:
        self._half, self._known, self._device = half, known, device
        networks = [teacher for teacher in teachers if isinstance(teacher, NetworkTeacher)]
        looking = networks if known is None else ()
        self._networks = [(teacher.network.to(device), teacher.info.size) for teacher in looking]
        wanted = networks if settings.distill.logits else ()
        self._classifiers = [teacher.classifier.to(device) for teacher in wanted if teacher.classifier is not None]

    def known(self, indices: Tensor) -> Tensor | None:
        """Return the features of training images by number, N×T×D float16; None if each batch is looked at anew."""
        return None if self._known is None else self._known.features[indices]

    @torch.no_grad()
    def __call__(self, images: Tensor, known: Tensor | None) -> Taught:
        """Return what the teachers say of a batch.

        Args:
            images: N×3×H×W, as the network that learns sees them; each teacher is given them at its own input size.
            known: Features of these images, from :meth:`known`.
        """
        if known is None:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
                seen = [network(_at_size(images.float(), size)) for network, size in self._networks]
            features = torch.stack(seen, 1).float()
        else:
            features = known.float()
        logits = [classifier(features[:, number]) for number, classifier in enumerate(self._classifiers)]
        return Taught(features, logits)

    def save(self, path: Path) -> None:
        """Write the known features, if there are any, for a run that goes on.

        Raises:
            OutputError: The file cannot be written.
        """
        if self._known is not None:
            self._known.save(path)


def _at_size(images: Tensor, size: Size) -> Tensor:
    if images.shape[2:] == size:
        return images
    return functional.interpolate(images, size, mode="bilinear", antialias=True)


def make_staff(
    teachers: Sequence[Teacher],
    settings: TrainSettings,
    training_data: TrainingData,
    kept: Path,
    *,
    normalised_by: tuple[PerChannel, PerChannel],
    device: torch.device,
    half: bool,
    notify: Notify,
) -> TeachingStaff | None:
    """Put teachers to work; those that see clean images do their work here, unless a run that goes on has kept it.

    Args:
        teachers: Teachers of the run.
        settings: The run's settings.
        training_data: The run's images.
        kept: File of features that an earlier session may have written.
        normalised_by: Mean and standard deviation of the run's input.
        device: Device of the batches.
        half: Compute in bfloat16.
        notify: Starts a progress bar with a text and a number of steps.

    Returns:
        The teachers; None if there are none.

    Raises:
        CheckpointMismatchError: A teacher that is to see what the network sees normalises it otherwise.
        SettingsError: A teacher's features are not finite, or too large to be kept.
    """
    if not teachers:
        return None
    known = None
    if settings.distill.view == "same":
        check_normalisation(teachers, *normalised_by)
        _try_out(teachers, settings, training_data.images, device, half=half)
    else:
        key = _key(teachers, training_data.fingerprint, half=half)
        known = KnownFeatures.kept(kept, key)
        if known is None:
            images = training_data.images
            on_image = notify("teachers look at the images", len(images) * len(teachers))
            features = known_features(teachers, images, settings.augment, device, half=half, on_image=on_image)
            known = KnownFeatures(features, key)
    return TeachingStaff(teachers, settings, device, half=half, known=known)


def known_features(
    teachers: Sequence[Teacher],
    images: Images,
    augment: AugmentSettings,
    device: torch.device,
    *,
    half: bool,
    on_image: Callable[[int], object] = lambda _count: None,
) -> Tensor:
    """Return the teachers' features of all images, each network's at its own size and by its own normalisation.

    A network's feature is the mean of those of the image and of its mirror image: the network that learns sees both.
    Features of different lengths are filled up with zeros, which change no cosine.

    Args:
        teachers: T teachers.
        images: N files, or N×h×w×3 uint8 BGR.
        augment: The run's augmentation, of which only ``crop`` matters: such images are cropped in the middle.
        device: Device to compute on.
        half: Compute in bfloat16.
        on_image: Called with the number of images done since the last call; N × T in all.

    Returns:
        N×T×D float16 on the CPU, D that of the teacher with the longest.

    Raises:
        SettingsError: A network's features are not finite, or too large for float16.
    """
    longest = max(teacher.feature_size for teacher in teachers)
    found = torch.zeros(len(images), len(teachers), longest, dtype=torch.float16)
    for number, teacher in enumerate(teachers):
        if isinstance(teacher, TableTeacher):
            found[:, number, : teacher.feature_size] = functional.normalize(teacher.features, dim=1).half()
            on_image(len(images))
            continue
        batches = torch.split(torch.arange(len(images)), _BATCH)
        for batch, features in _looks(teacher, images, augment, teacher.info.size, batches, device, half=half):
            _check_range(teacher, features, torch.finfo(torch.float16).max)
            found[batch, number, : teacher.feature_size] = features.half().cpu()
            on_image(len(batch))
    return found


def _try_out(
    teachers: Sequence[Teacher], settings: TrainSettings, images: Images, device: torch.device, *, half: bool
) -> None:
    """Refuse a teacher that makes numbers of the first images that are not finite; steps do not look at them."""
    first = [torch.arange(min(len(images), _BATCH))]
    for teacher in teachers:
        if isinstance(teacher, NetworkTeacher):
            for _, features in _looks(teacher, images, settings.augment, teacher.info.size, first, device, half=half):
                _check_range(teacher, features, torch.finfo(torch.float32).max)


def _check_range(teacher: NetworkTeacher, features: Tensor, largest: float) -> None:
    found = float(features.abs().max())  # NaN if one of them is
    if not math.isfinite(found):
        raise SettingsError(
            f"distill.teachers: {teacher.path} makes features that are not finite; its weights are damaged, or the "
            "input is not what it was trained on. Give another teacher."
        )
    if found > largest:
        raise SettingsError(
            f"distill.teachers: {teacher.path} makes features of up to {found:,.0f}, and float16, in which they are "
            f"kept, ends at {largest:,.0f}. Use --set distill.view=same, which keeps none, or another teacher."
        )


def _looks(
    teacher: NetworkTeacher,
    images: Images,
    augment: AugmentSettings,
    size: Size,
    batches: Sequence[Tensor],
    device: torch.device,
    *,
    half: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each batch, as the numbers of its images, with a network's features of it, N×D float32 on the device."""
    source = open_pixels(images, source_size(augment, size), device, memory_bytes=0)
    source.prefetch(batches)
    network = teacher.network.to(device)
    for batch in batches:
        pixels = normalise(centre(source.batch(batch), size), teacher.info.mean, teacher.info.std)
        yield batch, _mirrored_mean(network, pixels.contiguous(memory_format=torch.channels_last), half=half)
    network.cpu()


@torch.inference_mode()
def _mirrored_mean(network: nn.Module, pixels: Tensor, *, half: bool) -> Tensor:
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=half):
        both: list[Tensor] = [network(pixels), network(pixels.flip(3))]
    return (both[0].float() + both[1].float()) / 2
