"""The same weights as every contender wants them: torchreid's file, BoxMOT's exports, a reid-edge bundle."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import reid_edge

_PACKAGE = Path(reid_edge.__file__).parent
_SHIPPED = _PACKAGE.parent / "models" / "osnet_x0_25_market1501.safetensors"
#: BoxMOT reads the network's kind out of the file's name.
_STEM = "osnet_x0_25_market1501"


@dataclass(frozen=True, kw_only=True)
class Artefacts:
    """Files of one set of weights; ``problems`` says what could not be made, by name."""

    weights: Path
    weights_sha256: str
    torchreid: Path
    boxmot: Path
    onnx: Path
    openvino: Path
    ncnn: Path
    mnn: Path
    litert: Path
    bundle: Path
    problems: dict[str, str]


def make_artefacts(folder: Path, weights: Path | None, say: Callable[[str], object]) -> Artefacts:
    """Make what is not there yet.

    Args:
        folder: Where artefacts are kept, by weights and, for the bundle, by the code that made it.
        weights: A torchreid ``.pth`` of OSNet ×0.25; None: the checkpoint that ships with reid-edge.
        say: Told before each step that takes long.

    Raises:
        FileNotFoundError: No such weights.
        subprocess.CalledProcessError: ``reid-edge export`` failed.
    """
    source = weights or _SHIPPED
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    home = folder / digest[:12]
    home.mkdir(parents=True, exist_ok=True)
    pth, pt = home / f"{_STEM}.pth", home / f"{_STEM}.pt"
    if not pth.exists():
        say("the weights under torchreid's names")
        _write_torchreid(source, pth)
    if not pt.exists():
        with _finished(pt) as partial:
            shutil.copyfile(pth, partial)
    onnx, openvino = pt.with_suffix(".onnx"), home / f"{_STEM}_openvino_model"
    problems = {}
    if not (onnx.exists() and openvino.exists()):
        say("BoxMOT's export, ¾ minute")
        problems.update(_boxmot_export(pt))
    tensor = home / "tensor"
    ncnn, mnn = tensor / "model.ncnn.param", tensor / "model.mnn"
    litert = tensor / "litert" / "model_float32.tflite"
    if not (ncnn.exists() and mnn.exists() and litert.exists()):
        say("files for ncnn, MNN and LiteRT")
        problems.update(_convert(source, tensor, ncnn, mnn, litert))
    bundle = home / f"bundle-{_code_hash()}"
    if not (bundle / "manifest.json").exists():
        say("reid-edge's export")
        _reid_edge_export(source, bundle, "--formats", "onnx,openvino,native", "--precision", "fp32,int8")
    return Artefacts(
        weights=source,
        weights_sha256=digest,
        torchreid=pth,
        boxmot=pt,
        onnx=onnx,
        openvino=openvino,
        ncnn=ncnn,
        mnn=mnn,
        litert=litert,
        bundle=bundle,
        problems=problems,
    )


def _write_torchreid(source: Path, target: Path) -> None:
    import torch

    state = torch.load(source, weights_only=True) if source.suffix != ".safetensors" else _torchreid_names(source)
    with _finished(target) as partial:
        torch.save(state, partial)


def _torchreid_names(source: Path) -> dict[str, object]:
    """Our tensors under torchreid's names.

    reid-edge knows only the way from torchreid's names to its own.  So a torchreid file in which every tensor holds a
    number of its own is imported: where that number turns up tells which tensor it became.
    """
    import tempfile

    import torch
    from vision import import_torchvision

    from reid_edge.osnet.checkpoint import load_checkpoint
    from reid_edge.osnet.torchreid import import_torchreid

    import_torchvision()
    from torchreid.reid.models import build_model

    state = build_model("osnet_x0_25", num_classes=1, pretrained=False, use_gpu=False).state_dict()
    numbers = {name: index + 1 for index, name in enumerate(state)}
    marked = {name: torch.full_like(tensor, numbers[name]) for name, tensor in state.items()}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(marked, Path(folder, "marked.pth"))
        imported = import_torchreid(Path(folder, "marked.pth")).state
    ours_of = {int(tensor.flatten()[0]): name for name, tensor in imported.items()}
    trained = load_checkpoint(source).state
    return {name: trained[ours_of[number]] for name, number in numbers.items() if number in ours_of}


def _boxmot_export(weights: Path) -> dict[str, str]:
    """BoxMOT's own command; its failure is a finding, not an error here."""
    command = [_program("boxmot"), "export", "--weights", str(weights)]
    formats = ["--include", "onnx", "--include", "openvino", "--dynamic"]
    done = subprocess.run([*command, *formats], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return {}
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
    return {"boxmot export": lines[-1].strip()}


def _convert(source: Path, tensor: Path, ncnn: Path, mnn: Path, litert: Path) -> dict[str, str]:
    """Our ONNX file for normalised values, by the converters of ncnn, MNN and LiteRT; their failures are findings.

    They see no directory of programs but the system's: MNN's installs a package with the first pip that it finds.
    """
    if not (tensor / "model.onnx").exists():
        _reid_edge_export(source, tensor, "--input", "tensor", "--formats", "onnx", "--precision", "fp32")
    model = str(tensor / "model.onnx")
    into_mnn = ["--modelFile", model, "--MNNModel", str(mnn)]
    into_litert = str(Path(sys.prefix, "converter", "bin", "onnx2tf"))
    commands = {
        "ncnn": (ncnn, [_program("pnnx"), model, "inputshape=[1,3,256,128]"]),
        "MNN": (mnn, [_program("mnnconvert"), "-f", "ONNX", "--bizCode", "reid", *into_mnn]),
        "LiteRT": (litert, [into_litert, "-i", model, "-o", str(litert.parent), "-n"]),
    }
    missing = {name: command for name, (file, command) in commands.items() if not file.exists()}
    reasons = {name: _run_converter(command, tensor) for name, command in missing.items()}
    return {f"{name}'s converter": reason for name, reason in reasons.items() if reason}


def _run_converter(command: list[str], folder: Path) -> str:
    """Return "", or why there is no file."""
    if not Path(command[0]).exists():
        return f"there is no {command[0]}"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return f"it ended with {done.returncode}" if done.returncode else ""


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _reid_edge_export(source: Path, bundle: Path, *choices: str) -> None:
    command = [_program("reid-edge"), "export", "--checkpoint", str(source), "--no-latency", "--out", str(bundle)]
    subprocess.run([*command, *choices], check=True, stdout=subprocess.DEVNULL)


def _code_hash() -> str:
    """Hash the code that determines a bundle's content."""
    digest = hashlib.sha256()
    for part in ("export", "osnet", "runtime/native"):
        for file in sorted((_PACKAGE / part).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _finished(path: Path) -> Iterator[Path]:
    """A file that appears under its name only when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    partial.replace(path)
