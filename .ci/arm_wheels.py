"""Resolve every installation that the pages describe for 64-bit Arm: wheels for all, no CUDA.

    python .ci/arm_wheels.py

Needs uv, whose resolver takes another platform's word for markers; pip asks those of the machine it runs on.
"""

import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
#: Pages whose lines "pip install" are resolved.
PAGES = ("README.md", "docs/jetson.md", "docs/gallery.md", "docs/training.md", "deploy/systemd/README.md")
#: Extras that reports and evaluations ask for when they are missing.
FURTHER = (("report",), ("evaluation", "parquet"))
#: Named on the pages as an example, for x86, or for development there.
ELSEWHERE = {"EXTRA", "tensorrt", "tensorrt-rtx", "dev"}
#: What an environment of docs/jetson.md holds before anything is added to it.
JETSON = ("camera", "signing")
#: JetPack 6 has Python 3.10 and glibc 2.35, JetPack 7.2 Python 3.12; Raspberry Pi OS 3.13.
JETSON_PYTHONS, PYTHONS = ("3.10", "3.12"), ("3.10", "3.12", "3.13")
#: Packages without a wheel on PyPI for JetPack 6.
FROM_JETPACK_7 = {"onnxruntime-gpu"}
PLATFORM = "aarch64-manylinux_2_35"


def described():
    """List extras and further packages of every line "pip install" on the pages, each once."""
    found = dict.fromkeys((extras, ()) for extras in FURTHER)
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8").replace("$(ls reid_edge-*.whl)", "reid-edge")
        for line in re.findall(r"pip install ([^`\n|&#]+)", text):
            words = [word for word in shlex.split(line) if word != "-e"]
            own = [word for word in words if re.fullmatch(r"(reid-edge|\.)\[[\w,-]+\]", word)]
            extras = tuple(own[0].partition("[")[2].strip("]").split(",")) if own else JETSON
            besides = tuple(word for word in words if word not in own)
            if "--extra-index-url" not in words and not ELSEWHERE.intersection(extras):
                found[extras, besides] = None
    return list(found)


def resolved(extras, besides, python):
    """Return the packages of an installation, by name."""
    text = "".join(f"{one}\n" for one in (f"reid-edge[{','.join(extras)}] @ {ROOT.as_uri()}", *besides))
    command = [sys.executable, "-m", "uv", "pip", "compile", "-q", "-", "--python-platform", PLATFORM]
    command += ["--python-version", python, "--only-binary", ":all:", "--no-binary", "reid-edge", "--no-annotate"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"no wheels for 64-bit Arm, Python {python}, {extras}:\n{done.stderr}")
    return dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE))


for extras, besides in described():
    pythons = JETSON_PYTHONS if besides else PYTHONS
    pythons = pythons[1:] if FROM_JETPACK_7.intersection(besides) else pythons
    for python in pythons:
        found = resolved(extras, besides, python)
        cuda = [name for name in found if name.startswith(("nvidia-", "cuda-", "triton"))]
        if cuda:
            sys.exit(f"64-bit Arm, Python {python}, {extras} would bring CUDA: {', '.join(cuda)}")
        if besides and not found["numpy"].startswith("1."):
            sys.exit(f"64-bit Arm, Python {python}, {extras}: NumPy {found['numpy']} in spite of {besides}")
    packages = " ".join((f"[{','.join(extras)}]", *besides))
    print(f"64-bit Arm: {len(found)} wheels for {packages} and Python {' and '.join(pythons)}")
