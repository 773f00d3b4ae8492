"""What the software of a target does with the files, literally, over ONNX Runtime."""

import numpy as np
import onnxruntime

from reid_edge.features import row_cosines


def features_of(model, inputs):
    """Run an ONNX file on N inputs, one at a time: N×D."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (name,) = (held.name for held in session.get_inputs())
    return np.concatenate([session.run(None, {name: np.ascontiguousarray(one[None])})[0] for one in inputs])


def planes(crops, *, scale, offsets, rgb=True):
    """Compute scale · (x − offset) as nvinfer and others do: N×H×W×3 BGR to N×3×H×W float32."""
    pixels = crops[..., ::-1] if rgb else crops
    values = np.float32(scale) * (pixels.astype(np.float32) - np.asarray(offsets, np.float32))
    return values.transpose(0, 3, 1, 2)


def lowest_cosine(got, expected):
    return row_cosines(got, expected).min()
