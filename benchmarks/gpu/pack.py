"""Collect what ``run.py`` needs on a machine with a GPU and torch, but without internet.

    python benchmarks/gpu/pack.py FOLDER BUNDLE [--python 3.12]

FOLDER gets wheels of the packages that such a machine usually lacks, and the bundle's ONNX files.  Copy it with the
repository, and run there what this script prints.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from reid_edge.bundle import Bundle, open_bundle, write_manifest

PACKAGES = ("msgspec", "kornia", "kornia_rs", "tensorboardX", "tomli_w", "safetensors")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def copy_onnx(bundle: Bundle, folder: Path) -> Bundle:
    """Copy a bundle's ONNX files and golden crops; plans would be of another device."""
    kept = tuple(one for one in bundle.manifest.artifacts if one.engine == "onnxruntime")
    manifest = replace(bundle.manifest, artifacts=kept, latency=(), tuning=None)
    for entry in manifest.entries():
        (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / entry.path).write_bytes(bundle.read(entry))
    write_manifest(folder, manifest)
    return open_bundle(folder, built_dir=None)


def fetch_wheels(folder: Path, python: str) -> None:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    pip += ["--python-version", python, *(f"--platform={one}" for one in PLATFORMS)]
    subprocess.run([*pip, "-d", str(folder), *PACKAGES], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--python", default="3.12", help="Python of the machine with the GPU")
    args = parser.parse_args()
    copy_onnx(open_bundle(args.bundle), args.folder / "bundle")
    fetch_wheels(args.folder / "wheels", args.python)
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    print(f"{size / 2**20:.1f} MiB in {args.folder}. On the machine with the GPU, in the repository's folder:\n")
    print(f"  python3 -m pip install -q --no-index --no-deps --target site {args.folder}/wheels/*.whl")
    print(f"  PYTHONPATH=site:. timeout 540 python3 benchmarks/gpu/run.py {args.folder}/bundle --out gpu.json")


if __name__ == "__main__":
    main()
