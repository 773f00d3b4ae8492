"""A GPU for tests that have none: a CUDA driver written in C, and TensorRT whose plans are ONNX files."""
