"""Compiles the library of the ``native`` engine.

    python native/compile_library.py [OUTPUT.so] [--target x86_64|aarch64] [--sanitize] [--program MAIN.c]

Each file of ``src`` is one translation unit.  A file that is named after an instruction set is compiled with the flags
of that set and only for its processor; at run time ``dispatch.c`` takes none that the CPU lacks.  The compiler is zig's
clang where the package ``ziglang`` is installed (``pip install .`` brings it for the build), which also compiles for
another processor, else ``cc``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
LIBRARY = Path(__file__).parent.parent / "reid_edge" / "runtime" / "native" / "libreid_native.so"
#: The oldest C library that the compiled file runs with (of Debian 10, RHEL 8, Ubuntu 20.04 and JetPack 5).
GLIBC = (2, 28)
PROCESSORS = ("x86_64", "aarch64")
#: Files that are for one processor, with the instructions that they may use.
INSTRUCTION_SETS = {
    "avx2": ("x86_64", ["-mavx2", "-mfma", "-mf16c"]),
    "avx2int8": ("x86_64", ["-mavx2", "-mfma", "-mf16c"]),
    "avx2vnni": ("x86_64", ["-mavx2", "-mfma", "-mf16c", "-mavxvnni"]),
    "avx512": ("x86_64", ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]),
    "avx512vnni": ("x86_64", ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma"]),
    "avx512bf16": (
        "x86_64",
        ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mavx512bf16", "-mfma"],
    ),
    "avx512int8": ("x86_64", ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma"]),
    "avx512vl": ("x86_64", ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma"]),
    "neon": ("aarch64", []),
    "neondot": ("aarch64", ["-mcpu=generic+dotprod"]),
}
_FLAGS = [
    *(
        "-std=gnu11",
        "-O3",
        "-fPIC",
        "-fvisibility=hidden",
        "-ffp-contract=fast",
        "-fno-math-errno",
        "-fno-trapping-math",
    ),
    *("-Wall", "-Wextra", "-Werror=implicit-function-declaration"),
]
_SANITIZERS = [
    *("-O1", "-DSMALL_CODE", "-g"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
]


class BuildError(Exception):
    """The library could not be compiled; the text says why."""


def build(
    output: Path = LIBRARY, *, target: str | None = None, sanitize: bool = False, program: Path | None = None
) -> str:
    """Compile the library, and put it in place in one step.

    Args:
        output: The shared library to write.
        program: A file with ``main``, to make a static program with the library's code instead.
        target: One of ``PROCESSORS``; this machine's if None.
        sanitize: Stop at each memory error and each undefined operation.  Needs ``cc``, whose run-time library is
            loaded beforehand (``LD_PRELOAD=$(cc -print-file-name=libasan.so)``).

    Returns:
        The platform tag of a wheel that holds it, e.g. ``manylinux_2_28_x86_64``.

    Raises:
        BuildError: There is no compiler for the target, or it failed.
    """
    processor = target or platform.machine()
    if sys.platform != "linux" or processor not in PROCESSORS:
        raise BuildError(f"the native engine is made for Linux on {' and '.join(PROCESSORS)}, not {processor}")
    if target is None and (sys.maxsize < 2**32 or platform.libc_ver()[0] != "glibc"):  # whatever the kernel's processor
        raise BuildError("the native engine is made for 64-bit Python on glibc; this Python is another")
    compiler, portable = _compiler(processor, sanitize, static=program is not None)
    flags = [*_FLAGS, *(_SANITIZERS if sanitize else ["-fno-sanitize=all", "-g0"])]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".native-") as folder:
        objects = [
            *_compile(compiler, flags, processor, Path(folder)),
            *([str(program), f"-I{SOURCES}"] if program else []),
        ]
        linked = Path(folder) / output.name
        _run([*compiler, *flags, "-static" if program else "-shared", *objects, "-lm", "-lpthread", "-o", str(linked)])
        linked.replace(output)
    return f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{processor}" if portable else f"linux_{processor}"


def _compiler(processor: str, sanitize: bool, static: bool) -> tuple[list[str], bool]:
    """Return the command, and whether what it makes runs with any C library since ``GLIBC``."""
    if importlib.util.find_spec("ziglang") is not None and not sanitize:
        triple = f"{processor}-linux-musl" if static else f"{processor}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
        return [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-s"], True
    command = os.environ.get("CC", "cc")
    if processor != platform.machine():
        raise BuildError(f"compiling for {processor} on {platform.machine()} needs ziglang: pip install ziglang")
    if shutil.which(command) is None:
        raise BuildError(f"no compiler: neither ziglang nor {command} is installed")
    return [command], False


def _compile(compiler: list[str], flags: list[str], processor: str, folder: Path) -> list[str]:
    jobs = []
    for source in sorted(SOURCES.glob("*.c")):
        only_for, extra = INSTRUCTION_SETS.get(source.stem, (processor, []))
        if only_for == processor:
            made = str(folder / f"{source.stem}.o")
            jobs.append((made, [*compiler, *flags, *extra, "-c", str(source), "-o", made]))
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        for done in [workers.submit(_run, command) for _, command in jobs]:
            done.result()
    return [made for made, _ in jobs]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, nargs="?", default=LIBRARY)
    parser.add_argument("--target", choices=PROCESSORS)
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--program", type=Path, help="a file with main: makes a static program instead of the library")
    options = parser.parse_args()
    try:
        print(options.output, build(**vars(options)))
    except BuildError as error:
        sys.exit(str(error))
