"""ONNX Runtime's provider TENSORRT without a GPU: it builds, names and keeps engines as the real one, on the CPU.

An engine's file has one name, whatever the weights are.  An engine is built with the session where the shapes are
given, else at the first run, and again for each batch outside of the range so far.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime

NAME = "TensorrtExecutionProvider"


class Provider:
    """What tests may ask of it.

    Attributes:
        built: Smallest and largest batch of each engine that was built.
        options: Of the last session.
        release: Of TensorRT, which refuses the engines of others.
    """

    def __init__(self, monkeypatch) -> None:
        self.built: list[tuple[int, int]] = []
        self.options: dict[str, str] = {}
        self.release = 1
        self.real = onnxruntime.InferenceSession
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [NAME, "CPUExecutionProvider"])
        monkeypatch.setattr(onnxruntime, "InferenceSession", self._session)

    def _session(self, model, options, providers):
        if providers == ["CPUExecutionProvider"]:
            return self.real(model, options, providers=providers)
        name, self.options = providers[0] if isinstance(providers[0], tuple) else (providers[0], {})
        assert name == NAME
        return _Session(self, model, self.options)


class _Session:
    def __init__(self, provider, model, given):
        self.provider, self.model, self.given = provider, model, given
        self.sizes, self.engine = None, None
        self.file = Path(given.get("trt_engine_cache_path", "/nowhere"), "graph.engine")
        self.get_inputs, self.get_outputs, self.get_modelmeta = (
            getattr(self._on_cpu(model), name) for name in ("get_inputs", "get_outputs", "get_modelmeta")
        )
        if "trt_profile_min_shapes" in given:
            least, usual, most = (self._batch(given[f"trt_profile_{one}_shapes"]) for one in ("min", "opt", "max"))
            assert least <= usual <= most
            self._load_or_build(least, most)

    def _on_cpu(self, model):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return self.provider.real(model, options, providers=["CPUExecutionProvider"])

    def _batch(self, text):
        name, _, shape = text.rpartition(":")
        (crops,) = self.get_inputs()
        batch, *rest = map(int, shape.split("x"))
        assert (name, rest) == (crops.name, crops.shape[1:])
        return batch

    def _load_or_build(self, least, most):
        if self.file.exists():
            header, _, model = self.file.read_bytes().partition(b"\n")
            release, *self.sizes = json.loads(header)
            if release != self.provider.release:
                raise RuntimeError("TensorRT EP could not deserialize engine from cache")
            self.engine = self._on_cpu(model)
        if self.sizes is None or not self.sizes[0] <= least <= most <= self.sizes[1]:
            self.sizes = (min(least, *(self.sizes or (least,))), max(most, *(self.sizes or (most,))))
            self.provider.built.append(self.sizes)
            self.engine = self._on_cpu(self.model)
            if self.given.get("trt_engine_cache_enable") == "1":
                self.file.write_bytes(json.dumps([self.provider.release, *self.sizes]).encode() + b"\n" + self.model)
            if self.given.get("trt_timing_cache_enable") == "1":
                Path(self.given["trt_timing_cache_path"], "gpu.timing").write_bytes(b"times")

    def get_providers(self):
        return [NAME, "CPUExecutionProvider"]

    def run(self, outputs, inputs):
        (batch,) = inputs.values()
        self._load_or_build(len(batch), len(batch))
        return self.engine.run(outputs, inputs)
