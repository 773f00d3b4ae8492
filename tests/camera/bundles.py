"""The bundle of the tests in another form: other names for its features, other sizes of its input."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from reid_edge.bundle import Bundle, file_entry, open_bundle, write_manifest
from reid_edge.manifest import model_hash


def renamed_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """The same files under another model hash: features that must not be compared with those of the first."""
    shutil.copytree(bundle.path, folder)
    manifest, other = bundle.manifest, "0" * 64
    write_manifest(
        folder,
        replace(
            manifest,
            model_hash=model_hash(other, manifest.input, manifest.features),
            model=replace(manifest.model, checkpoint_sha256=other),
        ),
    )
    return open_bundle(folder)


def resized_bundle(bundle: Bundle, folder: Path, size: tuple[int, int]) -> Bundle:
    """The same weights for crops of another height and width, OpenVINO in FP32 only.

    An export would do the same and take a minute: the network has no layer whose weights depend on the size.
    """
    import openvino

    (folder / "openvino").mkdir(parents=True)
    core = openvino.Core()
    model = core.read_model(bundle.path / "openvino" / "fp32.xml")
    model.reshape([-1, *size, 3])
    openvino.save_model(model, folder / "openvino" / "fp32.xml", compress_to_fp16=False)
    crops = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    features = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(crops)[0]
    np.savez(folder / "golden.npz", crops=crops, features=features)
    manifest, spec = bundle.manifest, replace(bundle.manifest.input, size=size)
    files = tuple(file_entry(folder, f"openvino/fp32.{suffix}") for suffix in ("xml", "bin"))
    write_manifest(
        folder,
        replace(
            manifest,
            model_hash=model_hash(manifest.model.checkpoint_sha256, spec, manifest.features),
            input=spec,
            artifacts=(replace(bundle.artifact("openvino", "fp32"), files=files),),
            golden=file_entry(folder, "golden.npz"),
            latency=(),
        ),
    )
    return open_bundle(folder)
