"""What every target is made of: the bundle, the folder, crops, and the files that are written there."""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from reid_edge.bundle import Bundle
from reid_edge.errors import TargetError
from reid_edge.export.calibration import CalibrationSet
from reid_edge.export.targets.network import Form, RgbNetwork, rgb_network
from reid_edge.files import write_whole
from reid_edge.manifest import Artifact, EngineName, Precision
from reid_edge.types import Image

MODEL = "model.onnx"


@dataclass(frozen=True, kw_only=True)
class TargetWork:
    """A target that is being made.

    Attributes:
        bundle: What it is made of.
        folder: Where its files go; nobody else sees it yet.
        precisions: Which are wanted.
        calibration: Crops that calibrate and others that judge; None for software that does not calibrate.
    """

    bundle: Bundle
    folder: Path
    precisions: Sequence[Precision]
    calibration: CalibrationSet | None = None

    @property
    def name(self) -> str:
        """Name the model, e.g. ``osnet_x0_25_256x128``."""
        height, width = self.bundle.manifest.input.size
        return f"osnet_x{self.bundle.manifest.model.width:g}_{height}x{width}".replace(".", "_")

    @property
    def calibration_crops(self) -> Image:
        """Return the crops that calibrate, N×H×W×3 uint8, RGB."""
        assert self.calibration is not None
        return self.calibration.calibration[..., ::-1]

    def artifacts(self, engine: EngineName) -> list[Artifact]:
        """List the files of an engine in the wanted precisions.

        Raises:
            TargetError: The bundle has none.
        """
        found = [
            artifact
            for precision in self.precisions
            for artifact in self.bundle.manifest.artifacts
            if (artifact.engine, artifact.precision) == (engine, precision)
        ]
        if not found:
            held = ", ".join(artifact.name for artifact in self.bundle.manifest.artifacts)
            raise TargetError(
                f"{self.bundle.path} has no file for {engine} in {' or '.join(self.precisions)}; it has {held}. Export "
                "it with that --formats and --precision, or choose another --precision."
            )
        return found

    @property
    def bundle_argument(self) -> str:
        """Return the bundle's path as a word of a command line."""
        return shlex.quote(str(self.bundle.path.absolute()))

    def rgb_network(
        self, artifact: Artifact, *, form: Form, batch: int | None = None, scale: float = 1.0
    ) -> RgbNetwork:
        """Make the network of an ONNX file anew (:func:`reid_edge.export.targets.network.rgb_network`)."""
        entry = artifact.files[0]
        path = str(self.bundle.path_of(entry))
        return rgb_network(self.bundle.read(entry), path, form=form, batch=batch, scale=scale)

    def write(self, relative: str, content: bytes | str) -> None:
        """Write a file of the target."""
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.encode() if isinstance(content, str) else content)

    def write_model(self, model: onnx.ModelProto, relative: str = MODEL) -> None:
        """Write an ONNX file of the target."""
        self.write(relative, model.SerializeToString(deterministic=True))


def npy(crops: Image) -> bytes:
    """Write crops as the bytes of a ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(crops))
    return file.getvalue()


def numbers(values: Sequence[float], separator: str = ", ") -> str:
    """Write numbers as configuration files have them: no more digits than they need."""
    return separator.join(f"{value:.6g}" for value in values)
