"""Files for other software, made of a bundle: DeepStream, Triton, OpenVINO Model Server, compilers for NPUs."""
