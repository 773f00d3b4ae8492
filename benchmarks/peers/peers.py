"""reid-edge beside its peers: same weights, same crops, same threads, one run.

    benchmarks/peers/run.sh FOLDER [--out peers.json] [--markdown peers.md]      (makes the environment first)
    FOLDER/bin/python benchmarks/peers/peers.py --artefacts FOLDER/artefacts …   (with the environment at hand)

Writes every raw sample as JSON and prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import os
import shlex
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import msgspec
from artefacts import Artefacts, make_artefacts
from contenders import Contender
from inputs import MAX_CROPS
from report import as_markdown
from results import Comparison
from scheduler import TORCH, TORCHREID, Scheduler, check_agreement, entries, load_all, prepare_all, time_all
from workers import ContenderError

from reid_edge.bundle import open_bundle
from reid_edge.system.conditions import changes, read_conditions
from reid_edge.system.device import describe_device

_LIBRARIES = (
    "ai-edge-litert",
    "boxmot",
    "mnn",
    "ncnn",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "openvino",
    "pillow",
    "pnnx",
    "reid-edge",
    "torch",
    "torchreid",
    "torchvision",
)
#: What cannot take part anywhere that this script runs.
_NEVER = {
    "BoxMOT TensorRT, Core ML": "they need an NVIDIA GPU and a Mac",
    "BoxMOT TFLite, TorchScript": "not tried: LiteRT runs our ONNX file instead, and TorchScript is torch again",
    "BoxMOT, native C++": "its wheel has no library. It is built with CMake from C++ headers of ONNX Runtime and "
    "OpenCV, which the Python packages do not include",
    "torchreid's export": "the package on PyPI has none; BoxMOT's export of the same network is measured instead",
}


def peer_contenders(made: Artefacts) -> list[Contender]:
    """Return the contenders of other projects."""
    onnx, pth = str(made.onnx), str(made.torchreid)
    by_hand = "resize and normalise by hand"
    return [
        Contender(name=TORCHREID, kind="torchreid", path=pth, what="torchreid's extractor on crops cut by hand"),
        Contender(name="BoxMOT PyTorch", kind="boxmot", path=str(made.boxmot), what="BoxMOT's ReID on frame and boxes"),
        Contender(name="BoxMOT ONNX", kind="boxmot", path=onnx, what="the same on its ONNX export"),
        Contender(
            name="BoxMOT OpenVINO", kind="boxmot", path=str(made.openvino), what="the same on its OpenVINO export"
        ),
        Contender(name=TORCH, kind="torch-eager", path=pth, what=f"torchreid's network, inference_mode; {by_hand}"),
        Contender(name="torch, compiled", kind="torch-compile", path=pth, what=f"torch.compile of it; {by_hand}"),
        Contender(name="ONNX Runtime, plain", kind="onnxruntime", path=onnx, what=f"BoxMOT's ONNX export; {by_hand}"),
        Contender(name="OpenVINO, plain", kind="openvino", path=onnx, what=f"the same file, static shape; {by_hand}"),
        Contender(name="ncnn", kind="ncnn", path=str(made.ncnn), what=f"our ONNX file by pnnx; {by_hand}"),
        Contender(name="MNN", kind="mnn", path=str(made.mnn), what=f"our ONNX file by MNNConvert; {by_hand}"),
        Contender(name="LiteRT", kind="litert", path=str(made.litert), what=f"our ONNX file by onnx2tf; {by_hand}"),
    ]


_SHOWN: dict[str, str] = {"native": "native", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}


def bundle_contenders(label: str, path: Path) -> tuple[list[Contender], list[Contender]]:
    """Return the files of a bundle that run on a CPU, or its tuned ones; and their raw limits, OpenVINO alone."""
    manifest = open_bundle(path).manifest
    artifacts = [one for one in manifest.artifacts if one.engine in _SHOWN]
    if manifest.tuning is not None:
        artifacts = [one for one in artifacts if one.precision == "tuned"]
    whole, raw = [], []
    for artifact in artifacts:
        if artifact.precision == "fp16":  # on a CPU it runs as FP32
            continue
        shown = _SHOWN[artifact.engine]
        name = f"{label} {shown} {artifact.precision.upper()}"
        floats = artifact.execution.float_type if artifact.execution else "f32"
        common = {"path": str(path), "engine": artifact.engine, "precision": artifact.precision, "floats": floats}
        whole.append(Contender(name=name, kind="reid-edge", what="Extractor on frame and boxes", **common))
        if artifact.engine == "openvino":
            what = "the bundle's IR in OpenVINO's API, static shape, latency hint"
            raw.append(Contender(name=f"raw: {name}", kind="openvino-raw", what=what, **common))
    return whole, raw


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artefacts", type=Path, required=True, help="where exports are kept between runs")
    parser.add_argument("--weights", type=Path, help="torchreid .pth of OSNet x0.25; else the one that ships")
    parser.add_argument("--bundle", action="append", default=[], metavar="LABEL=FOLDER", help="one more bundle of ours "
                        "with the same weights, e.g. tuned=./osnet_x0_25_tuned; may be repeated")  # fmt: skip
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--crops", type=_crops, default=(1, 8), help="people in the frame, e.g. 1,8,32")
    parser.add_argument("--photographs", type=Path, help="folder of person crops to fill the boxes with")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--budget-seconds", type=float, default=225, help="of everything after the exports")
    parser.add_argument("--only", default="", help="names that hold one of these words, e.g. torch,INT8 (for trying)")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--markdown", type=Path, help="Markdown file; printed in any case")
    options = parser.parse_args(arguments)
    if not 1 <= options.threads <= len(os.sched_getaffinity(0)):
        parser.error(f"--threads: expected 1 to {len(os.sched_getaffinity(0))}, as this process may use so many CPUs.")
    if options.rounds < 1:
        parser.error("--rounds: expected at least 1.")
    for bundle in options.bundle:
        if "=" not in bundle:
            parser.error(f"--bundle: expected LABEL=FOLDER, got '{bundle}'.")
    return options


def _crops(text: str) -> tuple[int, ...]:
    counts = tuple(sorted({int(part) for part in text.split(",")}))
    if not counts or not 1 <= counts[0] <= counts[-1] <= MAX_CROPS:
        raise argparse.ArgumentTypeError(f"expected counts from 1 to {MAX_CROPS}, e.g. 1,8, got '{text}'.")
    return counts


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def line_up(options: argparse.Namespace, made: Artefacts) -> tuple[list[Contender], list[Contender]]:
    """Everybody who is asked to take part, and the raw limits among them."""
    ours, raw = bundle_contenders("reid-edge", made.bundle)
    for label, folder in (bundle.split("=", 1) for bundle in options.bundle):
        more, more_raw = bundle_contenders(f"reid-edge {label}", Path(folder).absolute())
        ours, raw = ours + more, raw + more_raw
    wanted = [*peer_contenders(made), *ours, *raw]
    if words := [word for word in options.only.lower().split(",") if word]:
        references = (TORCH, TORCHREID)
        wanted = [one for one in wanted if one.name in references or any(word in one.name.lower() for word in words)]
    return wanted, [one for one in wanted if one.kind == "openvino-raw"]


def compare(options: argparse.Namespace, made: Artefacts) -> Comparison:
    """Load, check, time.

    Raises:
        ContenderError: A reference, or everybody, failed.
    """
    deadline = time.monotonic() + options.budget_seconds
    wanted, raw = line_up(options, made)
    before = read_conditions()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        scheduler = Scheduler(options.threads, options.crops, options.photographs, Path(folder), say)
        scheduler.not_run |= _NEVER | made.problems
        ends.callback(scheduler.close)
        say(f"loading {len(wanted)}")
        load_all(scheduler, wanted, _environment(options))
        say("first queries, warming up")
        prepare_all(scheduler)
        check_agreement(scheduler)
        timed = {session.name for session in scheduler.sessions}
        limits = [_renamed(one) for one in raw if one.name in timed]
        runs = time_all(scheduler, limits, rounds=options.rounds, deadline=deadline)
        took_part = entries(scheduler)
    after = read_conditions()
    return Comparison(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join([Path(sys.executable).name, *sys.argv]),
        weights=f"{made.weights.name} sha256:{made.weights_sha256}",
        threads=options.threads,
        crops=options.crops,
        device=describe_device(),
        before=before,
        after=after,
        libraries={name: importlib.metadata.version(name) for name in _LIBRARIES},
        protocol=_protocol(options),
        entries=tuple(took_part),
        agreement=tuple(scheduler.agreement),
        between_people=scheduler.between_people,
        runs=tuple(runs),
        not_run=scheduler.not_run,
        notes=changes(before, after),
    )


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """Threads of OpenMP, and a place where torch.compile finds what it compiled in an earlier run."""
    compiled = options.artefacts.absolute() / "torch_compile"
    return {"OMP_NUM_THREADS": str(options.threads), "TORCHINDUCTOR_CACHE_DIR": str(compiled)}


def _renamed(raw: Contender) -> Contender:
    """benchmark_app on the same file."""
    name = raw.name.replace("raw:", "benchmark_app:")
    return dataclasses.replace(raw, name=name, what="OpenVINO's benchmark_app: -hint latency -api sync")


def _protocol(options: argparse.Namespace) -> dict[str, str | int | float]:
    return {
        "rounds": options.rounds,
        "budget_seconds": options.budget_seconds,
        "order": "every query of every contender once a round, shuffled with a fixed seed",
        "processes": "one each, stopped (SIGSTOP) while another is timed, bound to as many CPUs as threads",
        "warm-up": "until two windows of 8 queries agree to 2 %, at most 0.6 s; 1 to 3 untimed queries before a turn",
        "samples": "all kept, none trimmed; of benchmark_app the median of each run of 1 s",
        "crops": str(options.photographs or "drawn people, fixed seed") + ", in a 1920x1080 frame",
    }


def main() -> None:
    options = parse(sys.argv[1:])
    usable = sorted(os.sched_getaffinity(0))
    made = make_artefacts(options.artefacts.absolute(), options.weights, lambda text: say(f"making {text}"))
    # Libraries that cannot be told a number of threads count the CPUs: children inherit these.
    os.sched_setaffinity(0, usable[: options.threads])
    try:
        found = compare(options, made)
    except ContenderError as error:
        sys.exit(f"peers.py: {error}")
    text = as_markdown(found)
    if options.out:
        options.out.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
