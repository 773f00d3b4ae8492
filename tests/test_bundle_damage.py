"""Any damage to a bundle is a typed error, or has no effect: raw bytes, values of the manifest, the golden file.

``REID_EDGE_DAMAGES=3000 pytest -n 0 tests/test_bundle_damage.py`` does by hand what the suite does a few times.
"""

import collections
import copy
import hashlib
import io
import json
import os
import random
import shutil
import sys
import zipfile

import numpy as np
import pytest

from reid_edge.bundle import MANIFEST, open_bundle
from reid_edge.cli.bundle import _bundle_facts, bundle_rows
from reid_edge.errors import BundleCorruptError, ReidEdgeError
from reid_edge.runtime import Extractor
from reid_edge.runtime.golden import check_extractor
from tests.faults.damage import damage_file, random_damage

ROUNDS = int(os.environ.get("REID_EDGE_DAMAGES", "60"))
CROPS = [np.random.default_rng(number).integers(0, 256, (256, 128, 3), dtype=np.uint8) for number in range(2)]
#: Values that no field expects, or that are at the edge of what one takes.
STRANGE = [
    None, True, False, -1, 0, 1, 2, 31, 511, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e-300, 1e308, -1e308, "", "x",
    "\x00", "a\x00b", "..", "../x", "/etc/passwd", "C:\\x", ".", "a" * 5000, "é" * 200, "\u202e", "NaN", "0" * 64,
    "f" * 63, [], {}, [None], [[[[]]]], [0] * 1000, {"x": {}}, "fp32", "int8", "tensorrt", "openvino", "graph", "host",
]  # fmt: skip


@pytest.fixture(scope="module")
def right(session_bundle):
    return Extractor(session_bundle, engine="onnxruntime", precision="fp32")(CROPS)


@pytest.fixture
def use(bundle_copy, right):
    """Open the bundle as the agent does and use it; return the outcome in a word.

    Raises:
        AssertionError: It computes something else, or raises what no caller expects.
    """
    expected = bundle_copy.manifest.model_hash

    def outcome(what):
        try:
            opened = open_bundle(bundle_copy.path)
            _bundle_facts(opened.manifest)
            bundle_rows(opened.manifest)
            extractor = Extractor(opened, engine="onnxruntime")
            check_extractor(extractor)
            features = extractor(CROPS)
        except ReidEdgeError as error:
            assert len(str(error)) < 3000, what
            return type(error).__name__
        except BaseException as error:
            raise AssertionError(f"{what}: {error!r}") from error
        assert opened.manifest.model_hash == expected, what
        assert (features * right).sum(1).min() > 0.999, what
        return "no effect"

    return outcome


def report(outcomes):
    listed = ", ".join(f"{name} {count:,}" for name, count in outcomes.most_common())
    sys.stdout.write(f"\n{sum(outcomes.values()):,} damages: {listed}\n")


def leaves(node, path=()):
    """List the place of every value in a JSON document, containers too."""
    found = [path] if path else []
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        found += leaves(child, (*path, key))
    return found


def mutated(document, luck):
    """Change one to three values of a JSON document; return it with a description."""
    document, told = copy.deepcopy(document), []
    for _ in range(luck.choice([1, 1, 1, 2, 3])):
        path = luck.choice(leaves(document))
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        told.append(f"{'.'.join(map(str, path))} {_change(parent, path[-1], document, luck)}")
    return document, "; ".join(told)


def _change(parent, key, document, luck):
    value = parent[key]
    kind = luck.choice(["strange", "strange", "strange", "gone", "twice", "another's", "nudged"])
    if kind == "gone":
        del parent[key]
    elif kind == "twice" and isinstance(parent, list):
        parent.append(copy.deepcopy(value))
    elif kind == "another's":
        place = document
        for step in luck.choice(leaves(document)):
            place = place[step]
        parent[key] = copy.deepcopy(place)
    elif kind == "nudged" and isinstance(value, (int, float)) and not isinstance(value, bool):
        parent[key] = luck.choice([value + 1, value - 1, -value, value * 1000, value / 3])
    else:
        parent[key] = luck.choice(STRANGE)
    return f"{kind}: {str(parent[key] if kind != 'gone' else '')[:60]!r}" if kind != "twice" else kind


def test_values_of_the_manifest_that_cannot_be(bundle_copy, use):
    path = bundle_copy.path / MANIFEST
    whole, outcomes = json.loads(path.read_text()), collections.Counter()
    for seed in range(ROUNDS):
        document, told = mutated(whole, random.Random(seed))
        path.write_text(json.dumps(document))
        outcomes[use(f"seed {seed}: {told}")] += 1
    report(outcomes)


def test_damaged_bytes_of_the_manifest(bundle_copy, use):
    path = bundle_copy.path / MANIFEST
    whole, outcomes = path.read_bytes(), collections.Counter()
    for seed in range(ROUNDS // 2):
        damage = damage_file(path, random.Random(seed))
        outcomes[use(f"seed {seed}: {damage}")] += 1
        path.write_bytes(whole)
    report(outcomes)


def test_damaged_bytes_of_a_model_or_the_golden_file(bundle_copy, use):
    names = [bundle_copy.artifact("onnxruntime", "fp32").files[0].path, bundle_copy.manifest.golden.path]
    outcomes = collections.Counter()
    for seed in range(ROUNDS // 4):
        path = bundle_copy.path / names[seed % 2]
        whole = path.read_bytes()
        damage = damage_file(path, random.Random(seed))
        outcomes[use(f"seed {seed}: {damage}")] += 1
        path.write_bytes(whole)
    assert set(outcomes) <= {"BundleCorruptError"}
    report(outcomes)


def rehashed_golden(bundle, content):
    """Put another golden file there, and its hash into the manifest."""
    (bundle.path / "golden.npz").write_bytes(content)
    path = bundle.path / MANIFEST
    document = json.loads(path.read_text())
    document["golden"] |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(document))


def test_a_golden_file_whose_hash_is_right_and_whose_content_is_not(bundle_copy, use):
    whole, outcomes = (bundle_copy.path / "golden.npz").read_bytes(), collections.Counter()
    for seed in range(ROUNDS // 4):
        luck = random.Random(seed)
        # Most of the file is pixels: damage its directory and headers as often.
        cut = luck.choice([0, len(whole) - 300])
        damage = random_damage(whole[cut:], luck)
        rehashed_golden(bundle_copy, whole[:cut] + damage.applied(whole[cut:]))
        outcomes[use(f"seed {seed}: from byte {cut}: {damage}")] += 1
    report(outcomes)


def npz(**arrays):
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def lying_header(shape):
    """An ``.npz`` whose header promises more than there is."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, dtype in (("crops", "|u1"), ("features", "<f4")):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", header.getvalue())
    return out.getvalue()


GOLDEN = np.zeros((2, 256, 128, 3), np.uint8), np.ones((2, 512), np.float32)
WRONG = {
    "empty": b"",
    "no zip": b"golden",
    "nothing in it": npz(),
    "one missing": npz(crops=GOLDEN[0]),
    "no crops": npz(crops=GOLDEN[0][:0], features=GOLDEN[1][:0]),
    "other sizes": npz(crops=GOLDEN[0][:, :128], features=GOLDEN[1]),
    "other type": npz(crops=GOLDEN[0].astype(np.float64), features=GOLDEN[1]),
    "one dimension": npz(crops=np.zeros(7, np.uint8), features=np.zeros(7, np.float32)),
    "no dimension": npz(crops=np.uint8(1), features=np.float32(1)),
    "fewer features": npz(crops=GOLDEN[0], features=GOLDEN[1][:1]),
    "features of another size": npz(crops=GOLDEN[0], features=GOLDEN[1][:, :100]),
    "not a number": npz(crops=GOLDEN[0], features=GOLDEN[1] * np.nan),
    "objects": npz(crops=np.array([{"a": 1}], dtype=object), features=GOLDEN[1]),
    "a million crops": lying_header((1_000_000, 256, 128, 3)),
    "more than any memory": lying_header((1 << 60, 256, 128, 3)),
    "a bomb": npz(crops=np.zeros((2000, 256, 128, 3), np.uint8), features=np.ones((2000, 512), np.float32)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_golden_file_of_another_kind_is_refused_before_memory_is_taken_for_it(bundle_copy, name):
    rehashed_golden(bundle_copy, WRONG[name])
    with pytest.raises(BundleCorruptError, match="holds no golden crops"):
        open_bundle(bundle_copy.path).golden()


def nested(depth):
    return b'{"format_version": 1, "x": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    "text",
    [nested(100_000), b"[" * 1_000_000, b'{"format_version": 1e999}', b'{"format_version": ' + b"9" * 10_000 + b"}"],
    ids=["nested", "open", "infinite", "huge"],
)
def test_a_manifest_made_to_exhaust_the_reader_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text)
    with pytest.raises(ReidEdgeError):
        open_bundle(tmp_path)


@pytest.mark.parametrize("path", ["loop", "file", "a\x00b", "x" * 5000])
def test_what_is_no_folder_is_no_bundle(tmp_path, path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReidEdgeError):
        open_bundle(tmp_path / path)


RULES = {
    "lists onnxruntime/fp32 2 times": lambda m: m["artifacts"].append(m["artifacts"][0]),
    "different contents": lambda m: m["artifacts"][0]["files"].append({**m["golden"], "sha256": "0" * 64}),
    "has 1 file; expected 2": lambda m: m["artifacts"][3]["files"].pop(),
    "is uint8 NHWC BGR, not uint8 NHWC RGB": lambda m: m["input"].update(color_order="RGB"),
    "under the name of another model": lambda m: m["input"].update(mean=[0.1, 0.2, 0.3]),
    "a record of a TensorRT plan": lambda m: m["artifacts"][0].update(
        plan=dict.fromkeys(("library", "version", "device", "compute_capability"), "")
        | {"built_precision": {}, "batches": [1, 1, 1]}
    ),
    "outside the bundle": lambda m: m["golden"].update(path="../golden.npz"),
    "a character that no name has": lambda m: m["golden"].update(path="golden\u0000.npz"),
    "too long a name": lambda m: m["golden"].update(path="g" * 300),
}  # fmt: skip


@pytest.mark.parametrize("message", RULES)
def test_each_rule_of_a_manifest_is_named(bundle_copy, message):
    path = bundle_copy.path / MANIFEST
    document = json.loads(path.read_text())
    RULES[message](document)
    path.write_text(json.dumps(document))
    with pytest.raises(BundleCorruptError, match=message):
        open_bundle(bundle_copy.path)


def test_a_folder_in_the_place_of_the_manifest_is_an_error(bundle_copy):
    (bundle_copy.path / MANIFEST).unlink()
    shutil.copytree(bundle_copy.path / "openvino", bundle_copy.path / MANIFEST)
    with pytest.raises(ReidEdgeError, match="cannot be read"):
        open_bundle(bundle_copy.path)
