"""Verified bundles from checkpoints: ONNX, OpenVINO and TensorRT files, calibration, INT8 verdicts."""
