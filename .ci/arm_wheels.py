"""Resolve every installation that the README and docs/jetson.md describe for 64-bit Arm: wheels for all, no CUDA.

    python .ci/arm_wheels.py

Needs uv, whose resolver takes another platform's word for markers; pip asks those of the machine it runs on.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
#: Extras, and what the page asks for besides.
INSTALLATIONS = (
    (("camera", "signing"), ("numpy<2",)),  # Jetson
    (("openvino", "camera"), ()),
    (("onnx", "camera"), ()),
    (("gallery",), ()),
    (("gallery", "postgresql"), ()),
    (("export", "camera"), ()),
    (("train", "explain", "export"), ()),
    (("report",), ()),
    (("evaluation", "parquet"), ()),
)
#: JetPack 6 has Python 3.10 and glibc 2.35, JetPack 7.2 Python 3.12; Raspberry Pi OS 3.13.
JETSON_PYTHONS, PYTHONS = ("3.10", "3.12"), ("3.10", "3.13")
PLATFORM = "aarch64-manylinux_2_35"


def resolved(extras, besides, python):
    """Return the packages of an installation, by name."""
    text = "".join(f"{one}\n" for one in (f"reid-edge[{','.join(extras)}] @ {ROOT.as_uri()}", *besides))
    command = [sys.executable, "-m", "uv", "pip", "compile", "-q", "-", "--python-platform", PLATFORM]
    command += ["--python-version", python, "--only-binary", ":all:", "--no-binary", "reid-edge", "--no-annotate"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"no wheels for 64-bit Arm, Python {python}, {extras}:\n{done.stderr}")
    return dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE))


for extras, besides in INSTALLATIONS:
    pythons = JETSON_PYTHONS if besides else PYTHONS
    for python in pythons:
        found = resolved(extras, besides, python)
        cuda = [name for name in found if name.startswith(("nvidia-", "cuda-", "triton"))]
        if cuda:
            sys.exit(f"64-bit Arm, Python {python}, {extras} would bring CUDA: {', '.join(cuda)}")
        if besides and not found["numpy"].startswith("1."):
            sys.exit(f"64-bit Arm, Python {python}, {extras}: NumPy {found['numpy']} in spite of {besides}")
    print(f"64-bit Arm: {len(found)} wheels for [{','.join(extras)}] and Python {' and '.join(pythons)}")
