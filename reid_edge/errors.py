"""Every error that reid-edge raises on purpose.

    ReidEdgeError
    ├── UsageError               flags or arguments that do not go together, or are out of range
    ├── SettingsError            a settings file (TOML), or a key in it, that is not what it should be
    ├── ConfigError              a network that cannot be: width, resolution, size, variant, rewrite
    ├── MissingExtraError        a package that this command needs is not installed
    ├── CheckpointError
    │   ├── CheckpointUnsafeError      the file holds code, not only weights
    │   └── CheckpointMismatchError    weights missing, unexpected or mis-shaped
    ├── CalibrationError         no usable calibration crops
    ├── AdaptationError         crops that a checkpoint cannot be adapted with
    ├── OutputError              nowhere to write, or something is there already
    ├── ParityError              an exported file does not compute what the checkpoint computes
    ├── QuantizationRejected     INT8 changes the ranking more than allowed
    ├── TargetError              a bundle that lacks what other software needs of it
    ├── TuningError              no form of a network is fast enough here, or keeps the accuracy
    ├── BundleError
    │   ├── BundleCorruptError         a file is missing or a byte has changed
    │   ├── BundleUntrustedError       not signed by a key that is pinned
    │   └── BundleVersionError         written by another format version
    ├── SigningKeyError          a key that signs bundles, or checks them, cannot be used
    ├── EngineError
    │   ├── EngineUnavailableError     not installed, or the bundle has no file for it
    │   ├── PlanMismatchError          a plan built for another device or library version
    │   └── GpuError                   CUDA reported an error
    │       └── GpuMemoryError               the GPU has no memory left
    ├── InputError               data that cannot be used
    │   ├── FrameError                 a frame or crop of wrong type, dtype or shape
    │   └── BoxError                   a box array of wrong shape, or empty or non-finite boxes
    ├── DatasetError             a dataset folder that is not what it should be
    ├── TrainingError            a training run cannot go on
    │   ├── StoppedError               a signal asked for it; the run can go on
    │   ├── DivergedError              a loss or a weight that is no finite number
    │   ├── CollapseError              all features have become the same
    │   └── ResumeError                a saved state that is not of this run
    ├── SourceError              no video where it should be
    ├── DetectorError            a detector's file or stream is not what was described
    │   └── DownloadError              a detector of the catalogue cannot be fetched, or came damaged
    ├── IdentityError           people cannot be told apart from what was given
    │   ├── MixedModelsError           features of several models in one comparison
    │   ├── ContradictionError         an operator's constraints, or sightings, that contradict one another
    │   ├── PairsError                 pairs of features that no map between two models can be learnt from
    │   ├── NoSuchTrackletError        a tracklet that is of no person
    │   └── UnsupportedRateError       too few pairs for the error rate that was asked for
    ├── UpstreamError
    │   ├── MessageError               bytes that are no message that this release reads
    │   ├── OutboxError                the outbox cannot be written or read
    │   │   └── OutboxInUseError             another process has it
    │   └── TransportError             the gallery or broker cannot be reached, or does not accept
    │       └── BatchTooLargeError           a smaller batch would be accepted
    └── GalleryError
        ├── StoreError                 the store cannot be opened, reached or written
        ├── ModelMismatchError         features of a model that the gallery does not hold
        ├── PeopleChangedError         somebody else has changed people meanwhile
        ├── PeopleServedError          another process gives this gallery's tracklets to people
        ├── NoSuchPersonError          no person has that number
        ├── MigrationRejected          a map between two models that loses too much
        └── NoSuchObservationError     nothing is stored under that id

A message says what was expected, what came, and what to do next.
"""

from __future__ import annotations


def shortened(reason: object, limit: int = 500) -> str:
    """Return a library's message, with its middle left out where it repeats what a file held at length."""
    text = str(reason)
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


class ReidEdgeError(Exception):
    """Base of all errors that reid-edge raises on purpose."""


class UsageError(ReidEdgeError, ValueError):
    """Flags or arguments that do not go together, or a value out of range."""


class SettingsError(ReidEdgeError, ValueError):
    """A settings file, or a key in it, that is not what it should be."""


class ConfigError(ReidEdgeError, ValueError):
    """A network that cannot be: a width, resolution, size, variant or rewrite."""


class MissingExtraError(ReidEdgeError, ImportError):
    """A package of an optional extra is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'reid-edge[{extra}]'"
        )
        self.package = package
        self.extra = extra


class CheckpointError(ReidEdgeError):
    """A checkpoint that cannot be read."""


class CheckpointUnsafeError(CheckpointError):
    """A pickle that would run code when loaded."""


class CheckpointMismatchError(CheckpointError):
    """Weights that do not fit the network, each one listed."""


class CalibrationError(ReidEdgeError):
    """No usable calibration crops."""


class AdaptationError(ReidEdgeError):
    """Crops that a checkpoint cannot be adapted with: too few, or too much alike."""


class OutputError(ReidEdgeError):
    """The output exists already or cannot be written."""


class ParityError(ReidEdgeError):
    """An exported file that does not compute what the checkpoint computes."""


class QuantizationRejected(ReidEdgeError):  # noqa: N818 - a verdict, not a malfunction
    """INT8 that changes the ranking more than the limit."""


class TargetError(ReidEdgeError):
    """A bundle, or a file of it, that cannot be made into what other software takes."""


class TuningError(ReidEdgeError):
    """No form of a network is fast enough on this device, or keeps the accuracy."""


class BundleError(ReidEdgeError):
    """A folder that is not a usable bundle."""


class BundleCorruptError(BundleError):
    """A bundle with a missing or changed file."""


class BundleUntrustedError(BundleError):
    """A bundle that none of the trusted keys has signed as it is now."""


class BundleVersionError(BundleError):
    """A bundle of a format version that this release does not read."""


class SigningKeyError(ReidEdgeError):
    """A key that signs bundles, or checks their signatures, and cannot be used."""


class EngineError(ReidEdgeError):
    """An engine failed."""


class EngineUnavailableError(EngineError):
    """No engine here can run what was asked for."""


class PlanMismatchError(EngineError):
    """A TensorRT plan that was built for another device or library version."""


class GpuError(EngineError):
    """CUDA reported an error; the message has its number, its name and the remedy."""


class GpuMemoryError(GpuError):
    """The GPU has no memory left for what was to be done."""


class InputError(ReidEdgeError, ValueError):
    """Data that cannot be used: an image, boxes, features, a file of results."""


class FrameError(InputError):
    """A frame or crop of wrong type, dtype or shape."""


class BoxError(InputError):
    """Boxes of wrong shape, or boxes that hold no pixel."""


class DatasetError(ReidEdgeError):
    """A dataset folder that is not what it should be."""


class TrainingError(ReidEdgeError):
    """A training run that cannot go on."""


class StoppedError(TrainingError):
    """A run that a signal, or the end of its time, asked to stop; its state is saved.

    Attributes:
        exit_code: What a shell expects of a process that the signal ended: 128 + its number; 143 for the end of the
            time.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class DivergedError(TrainingError):
    """A loss or a weight that is no finite number any more."""


class CollapseError(TrainingError):
    """Features that have become the same for every image."""


class ResumeError(TrainingError):
    """A saved state that is missing, unreadable, or of another run."""


class SourceError(ReidEdgeError):
    """No video where it should be."""


class DetectorError(ReidEdgeError):
    """A detector's file or stream that is not what was described."""


class DownloadError(DetectorError):
    """A detector of the catalogue that cannot be fetched, or came damaged."""


class IdentityError(ReidEdgeError):
    """People cannot be told apart from what was given."""


class MixedModelsError(IdentityError, ValueError):
    """Features of several models, which cannot be compared."""


class ContradictionError(IdentityError, ValueError):
    """Constraints of an operator, or sightings, that cannot all be true."""


class PairsError(IdentityError, ValueError):
    """Pairs of features that no map between two models can be learnt from, or a file that holds none."""


class NoSuchTrackletError(IdentityError, LookupError):
    """A tracklet that is of no person."""


class UnsupportedRateError(IdentityError):
    """Too few pairs to state an error rate.

    Attributes:
        needed: Number of independent pairs that the rate needs if none of them is an error.
        given: Number of independent pairs that there are.
    """

    def __init__(self, message: str, *, needed: int, given: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.given = given


class UpstreamError(ReidEdgeError):
    """Something between the camera and the gallery failed."""


class MessageError(UpstreamError, ValueError):
    """Bytes that are no message that this release reads."""


class OutboxError(UpstreamError):
    """The outbox cannot be written or read."""


class OutboxInUseError(OutboxError):
    """Another process, or another outbox of this one, has the file."""


class TransportError(UpstreamError):
    """The gallery or broker cannot be reached, or does not accept."""


class BatchTooLargeError(TransportError):
    """A batch that the other end does not take, though it may take a smaller one."""


class GalleryError(ReidEdgeError):
    """The gallery cannot do what was asked for."""


class StoreError(GalleryError):
    """The store cannot be opened, reached or written."""


class ModelMismatchError(GalleryError):
    """Features of a model that the gallery does not hold: they cannot be compared."""


class PeopleChangedError(GalleryError):
    """Somebody else has changed people since they were read; nothing was stored."""


class PeopleServedError(GalleryError):
    """Another process gives this gallery's tracklets to people as they come."""


class NoSuchPersonError(GalleryError, LookupError):
    """No person of the gallery has that number."""


class MigrationRejected(GalleryError):  # noqa: N818 - a verdict, not a malfunction
    """A map between two models that loses more of the ranking than the limit."""


class NoSuchObservationError(GalleryError, LookupError):
    """Nothing is stored under that id."""
