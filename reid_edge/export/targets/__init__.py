"""Files for other software, made of a bundle: servers, DeepStream, compilers for NPUs, ncnn, LiteRT."""
