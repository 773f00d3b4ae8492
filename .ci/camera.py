"""What a camera must be able to do with a bundle, in an environment that holds one engine and no torch."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

bundle = sys.argv[1]
for package in ("torch", "nncf", "onnxruntime", "safetensors"):
    assert importlib.util.find_spec(package) is None, f"{package} is installed on the camera"

imported = subprocess.run(
    [
        sys.executable,
        "-c",
        "import time; t = time.perf_counter(); from reid_edge.runtime import Extractor; print(time.perf_counter() - t)",
    ],
    capture_output=True,
    text=True,
    check=True,
)
reid_edge = pathlib.Path(sys.executable).with_name("reid-edge")
subprocess.run([reid_edge, "verify", bundle], check=True)

first_feature = """
import numpy as np
from reid_edge.runtime import Extractor
assert Extractor("{}", precision="int8")([np.zeros((200, 80, 3), np.uint8)]).shape == (1, 512)
""".format(bundle)
with tempfile.TemporaryDirectory() as folder:
    environment = os.environ | {"XDG_CACHE_HOME": folder}
    import cv2
    import numpy as np

    cv2.imwrite(f"{folder}/person.jpg", np.zeros((200, 80, 3), np.uint8))
    subprocess.run([reid_edge, "extract", bundle, f"{folder}/person.jpg", "--out", f"{folder}/f.npy"], check=True)
    subprocess.run([sys.executable, "-c", first_feature], check=True, env=environment)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", first_feature], check=True, env=environment)
    warm = time.perf_counter() - start
with tempfile.TemporaryDirectory() as folder:
    signed = shutil.copytree(bundle, f"{folder}/signed")
    cv2.imwrite(f"{folder}/person.jpg", np.zeros((200, 80, 3), np.uint8))
    subprocess.run([reid_edge, "bundle", "keygen", f"{folder}/key.pem"], check=True)
    subprocess.run([reid_edge, "bundle", "sign", signed, "--key", f"{folder}/key.pem"], check=True)
    pinned = [f"{folder}/person.jpg", "--trusted-key", f"{folder}/key.pem.pub", "--out", f"{folder}/f.npy"]
    subprocess.run([reid_edge, "extract", signed, *pinned], check=True)
    pathlib.Path(signed, "manifest.json.sig").unlink()
    refused = subprocess.run([reid_edge, "extract", signed, *pinned, "--force"], capture_output=True, text=True)
    assert refused.returncode == 1 and "BundleUntrustedError" in refused.stderr, refused.stderr
with tempfile.TemporaryDirectory() as folder:
    timing = ["--budget-seconds", "5", "--engine", "openvino", "--out", f"{folder}/here.json"]
    subprocess.run([reid_edge, "benchmark", bundle, *timing], check=True)
    assert json.loads(pathlib.Path(f"{folder}/here.json").read_text())["runs"]
    subprocess.run([reid_edge, "report", f"{folder}/here.json", "--markdown", "-"], check=True)
with tempfile.TemporaryDirectory() as folder:
    video = cv2.VideoWriter(f"{folder}/street.avi", cv2.VideoWriter_fourcc(*"MJPG"), 20, (480, 360))
    boxes = []
    for frame, x in enumerate(range(0, 240, 4), start=1):
        picture = np.full((360, 480, 3), 100, np.uint8)
        picture[100:220, x : x + 48] = np.random.default_rng(0).integers(0, 256, (120, 48, 3))
        video.write(picture)
        boxes.append(f"{frame},-1,{x + 1},101,48,120,0.9\n")
    video.release()
    pathlib.Path(folder, "boxes.txt").write_text("".join(boxes))
    options = ["--source", "street.avi", "--detector", "motchallenge:boxes.txt"]
    options += ["--state-dir", "state", "--upstream", "sqlite:gallery.db"]
    subprocess.run([reid_edge, "run", pathlib.Path(bundle).resolve(), *options], check=True, cwd=folder)
    info = subprocess.run(
        [reid_edge, "gallery", "info", "sqlite:gallery.db", "--json"],
        check=True,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert json.loads(info.stdout)["cameras"], info.stdout
print(
    f"Python {sys.version.split()[0]}: import reid_edge.runtime {float(imported.stdout):.2f} s (0.3 wanted), "
    f"process start to first feature, warm cache, {warm:.2f} s (2 wanted)"
)
