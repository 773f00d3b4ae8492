"""Kinds of files that a user takes for a checkpoint: known by their content, each with what to do about it."""

from __future__ import annotations

import codecs
import io
import re
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from reid_edge.foreign_text import one_line, one_line_of_bytes

#: Begins every file of torch.save from before its zip format (torch 1.6): the pickled magic number.
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP = b"PK\x03\x04"
#: Longest header that the safetensors library reads, bytes.
_MAX_SAFETENSORS_HEADER = 100_000_000
_WANTED = "expected a reid-edge .safetensors, or a PyTorch file with the weights of an OSNet (.pth, .pth.tar)"
_WEIGHTS = "give the PyTorch file (.pth) with the trained weights that it was made from"
_UNPACK = "unpack it, and give the checkpoint that is inside"
_SAVE_WEIGHTS = "in the program that has the weights, save them with torch.save(model.state_dict(), 'weights.pth')"

#: First bytes of files that hold no PyTorch weights, what they are, and the next step.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, which stands for the file in a repository",
        "fetch the file itself with 'git lfs pull', or download it",
    ),
    (b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes its weights (.h5)", _WANTED),
    (b"\x93NUMPY", "a NumPy array", _WANTED),
    (
        b"\x00\x05\x16\x07",
        "what macOS keeps beside a file under a name that begins with ._",
        "give the file of the same name without ._",
    ),
    (b"ftrt", "a TensorRT engine, which holds no trained weights that could be exported", _WEIGHTS),
)
_WEB_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
#: Pickles of protocols 0 and 1 have no header.  They begin with a dictionary or a list, or with the name of a class.
_OLD_PICKLE = re.compile(rb"(?:\([dl]|[}\]]|c[\w.]+\n\w+\n)(?:p\d+\n|q.|r....|\()", re.DOTALL)
#: The first field of an ONNX model is its format's version; then come the producer, operators or graph.
_ONNX = re.compile(rb"\x08[\x01-\x14][\x12\x1a\x22\x28\x32\x3a\x42]")


def is_safetensors(content: bytes) -> bool:
    """Return True if a file begins as safetensors does: the length of a JSON header, 8 bytes, then its brace."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= _MAX_SAFETENSORS_HEADER


def why_no_checkpoint(content: bytes, name: str) -> str:
    """Say what a file is that torch cannot read weights from, and the next step; "" if torch may try.

    Args:
        content: The whole file.
        name: Of the file, for the commands in the text.

    Returns:
        The rest of a sentence that begins with the file's name, e.g. "is empty: download it again."
    """
    what, step = _kind(content, name)
    return f"is {what}: {step}." if what else ""


def _kind(content: bytes, name: str) -> tuple[str, str]:
    if not content:
        return "empty", "download or copy it again"
    if not any(content):
        return "nothing but zeros, as an interrupted download leaves it", "download or copy it again"
    for beginning, what, step in _BEGINNINGS:
        if content.startswith(beginning):
            return what, step
    if content.startswith(_ZIP):
        return _zip_kind(content, name)
    if content[257:262] == b"ustar":
        return _tar_kind(content)
    if _is_pickle(content):
        return _pickle_kind(content)
    if _OLD_PICKLE.match(content) and content.endswith(b"."):
        return "a pickle of protocol 0 or 1, as Python 2 writes it by default", _SAVE_WEIGHTS
    return _text_kind(content) or _model_kind(content, name)


def _zip_kind(content: bytes, name: str) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names, damaged = archive.namelist(), archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError):
        return "truncated or damaged", "download or copy it again"
    if damaged is not None:
        return f"damaged in its part {one_line(damaged)}", "download or copy it again"
    pickles = [one for one in names if PurePosixPath(one).name == "data.pkl"]
    if not pickles:
        return _other_zip_kind(names)
    if len(pickles) != 1 or pickles[0].count("/") != 1:  # torch writes FOLDER/data.pkl, and reads nothing else
        return (
            "a zip archive of an unpacked checkpoint, whose parts lie in other folders than torch puts them",
            "give the checkpoint as it was before it was unpacked",
        )
    if any(one.endswith("/constants.pkl") for one in names):
        return "TorchScript, a compiled program", _save_script(name)
    return "", ""


def _other_zip_kind(names: Sequence[str]) -> tuple[str, str]:
    if any(one.endswith(("model.json", "archive_format")) for one in names):
        return "a program that torch.export wrote (.pt2)", _WEIGHTS
    if any(one.endswith("model.weights.h5") for one in names):
        return "a Keras model", _WANTED
    if names and all(one.endswith(".npy") for one in names):
        return "an archive of NumPy arrays (.npz)", _WANTED
    return f"a zip archive with {_listed(names)} in it", _UNPACK


def _save_script(name: str) -> str:
    return (
        "where you trust it, save its weights alone, in Python: import torch; "
        f"torch.save(torch.jit.load({name!r}, map_location='cpu').state_dict(), 'weights.pth')"
    )


def _tar_kind(content: bytes) -> tuple[str, str]:
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            names = archive.getnames()
    except (tarfile.TarError, EOFError, ValueError):
        return "a tar archive that is truncated or damaged", "download or copy it again"
    if {"sys_info", "storages"} <= set(names):
        return (
            "in the tar format of PyTorch before 0.1.10, of 2017",
            "open it where it was made, in a torch of that time, and save it with a newer one",
        )
    return f"a tar archive with {_listed(names)} in it", _UNPACK


def _listed(names: Sequence[str]) -> str:
    files = [one for one in names if not one.endswith("/")]
    shown = ", ".join(one_line(one, 60) for one in files[:3]) or "nothing"
    return shown + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def _is_pickle(content: bytes) -> bool:
    return content[:1] == b"\x80" and content[1:2] in b"\x01\x02\x03\x04\x05" and not _is_legacy(content)


def _is_legacy(content: bytes) -> bool:
    return LEGACY_MAGIC in content[:32]


def _pickle_kind(content: bytes) -> tuple[str, str]:
    if b"_load_from_bytes" in content:
        return (
            "a pickle that Python's pickle module wrote, which only running it could read",
            _SAVE_WEIGHTS,
        )
    if b"_rebuild_tensor" in content or b"_rebuild_parameter" in content:
        return (
            "one part (data.pkl) of an unpacked checkpoint; the numbers lie in its other parts",
            "give the checkpoint as it was before it was unpacked",
        )
    return "a pickle without tensors", _WANTED


def _text_kind(content: bytes) -> tuple[str, str] | None:
    start = _as_ascii(content[:4096]).lstrip()
    if _WEB_PAGE.match(start):
        title = _TITLE.search(start)
        called = f" ('{one_line_of_bytes(title[1], 80)}')" if title and title[1].strip() else ""
        return (
            f"a web page{called}, saved in place of the file",
            "open the link in a browser and download the file itself; a large file on Google Drive asks first",
        )
    if start.startswith((b"<?xml", b"<net ")):
        if b"<net " in start:
            return "an OpenVINO model, whose weights are no longer those that were trained", _WEIGHTS
        return "an XML document, perhaps a server's answer", "download the file again"
    if _is_text(start[:256]):
        return f"a text file that begins '{one_line_of_bytes(start, 60)}'", _WANTED
    return None


def _as_ascii(start: bytes) -> bytes:
    """Return the beginning of a text without its byte-order mark; UTF-16 with one byte a letter."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if start.startswith(mark):
            return start.removeprefix(mark).decode(encoding, "ignore").encode("ascii", "replace")
    return start.removeprefix(codecs.BOM_UTF8)


def _is_text(start: bytes) -> bool:
    return len(start) >= 4 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)


def _model_kind(content: bytes, name: str) -> tuple[str, str]:
    if _ONNX.match(content):
        return "an ONNX model, in which batch norms are no longer separate", _WEIGHTS
    if content[4:8] == b"ORTM":
        return "a model in ONNX Runtime's own format", _WEIGHTS
    if content[4:8] == b"TFL3":
        return "a TensorFlow Lite model", _WEIGHTS
    if _is_legacy(content):
        return "", ""
    suffix = name.rpartition(".")[2].lower()
    if suffix in ("engine", "plan", "trt"):
        return "a TensorRT engine, going by its name", _WEIGHTS
    return f"no checkpoint (it begins with the bytes {content[:8].hex(' ')})", _WANTED
