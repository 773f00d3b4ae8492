"""What a camera must be able to do with a bundle, in an environment that holds one engine and no torch."""

import importlib.util
import os
import pathlib
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
        "import time; t = time.perf_counter(); import reid_edge.runtime; print(time.perf_counter() - t)",
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
print(
    f"Python {sys.version.split()[0]}: import reid_edge.runtime {float(imported.stdout):.2f} s (0.3 wanted), "
    f"process start to first feature, warm cache, {warm:.2f} s (2 wanted)"
)
