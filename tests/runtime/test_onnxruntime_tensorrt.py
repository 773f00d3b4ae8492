"""ONNX Runtime by its provider TENSORRT: one engine for all batch sizes, kept between starts, of the right weights."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from reid_edge.camera.detectors.model.network import ModelFile, OnnxRuntimeNetwork
from reid_edge.errors import EngineError
from reid_edge.runtime import Extractor
from reid_edge.runtime.engines import EngineOptions, load_engine
from reid_edge.runtime.engines.onnxruntime_tensorrt import TensorRTSession
from tests.gpu.provider import Provider


@pytest.fixture
def provider(monkeypatch):
    return Provider(monkeypatch)


@pytest.fixture
def crops(session_bundle, rng):
    return rng.integers(0, 256, (8, *session_bundle.manifest.input.size, 3), dtype=np.uint8)


def loaded(bundle, precision="fp32", **options):
    artifact = bundle.artifact("onnxruntime", precision)
    return load_engine(bundle, artifact, EngineOptions(**{"device": "TENSORRT", **options}))


def test_one_engine_takes_every_batch_size_and_is_kept_for_the_next_start(session_bundle, crops, provider, tmp_path):
    want = loaded(session_bundle, device="CPU").infer(crops)
    for _start in range(2):
        engine = loaded(session_bundle, cache_dir=tmp_path)
        for size in range(1, 9):
            np.testing.assert_allclose(engine.infer(crops[:size]), want[:size], atol=1e-4)
    assert provider.built == [(1, session_bundle.artifact("onnxruntime", "fp32").max_batch)]
    assert engine.description.endswith("TENSORRT")


def test_without_a_folder_to_keep_it_in_an_engine_is_built_once_a_start(session_bundle, crops, provider):
    for _start in range(2):
        engine = loaded(session_bundle)
        for size in (1, 2, 8):
            engine.infer(crops[:size])
    assert len(provider.built) == 2
    assert not [name for name in provider.options if "cache" in name]


@pytest.mark.parametrize(("precision", "flags"), [("fp32", set()), ("fp16", {"fp16"}), ("int8", {"int8"})])
def test_tensorrt_may_use_the_types_of_the_file(session_bundle, provider, precision, flags):
    loaded(session_bundle, precision)
    names = {name for name, value in provider.options.items() if name.endswith(("fp16_enable", "int8_enable"))}
    assert names == {f"trt_{flag}_enable" for flag in flags}


def with_other_weights(content: bytes) -> bytes:
    """The same graph; ONNX Runtime's names of engines do not tell the two apart."""
    model = onnx.load_from_string(content)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.ndim == 4:
            weight.CopyFrom(numpy_helper.from_array(-values, weight.name))
    return model.SerializeToString()


def network(model, path):
    return OnnxRuntimeNetwork(ModelFile(path, model, b"", True), None, "TENSORRT")


def test_a_detectors_engine_is_kept_and_never_taken_for_one_of_other_weights(
    session_bundle, crops, provider, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = session_bundle.read(session_bundle.artifact("onnxruntime", "fp32").files[0])
    path = tmp_path / "detector.onnx"
    first = network(model, path).run(crops[:1])
    np.testing.assert_array_equal(network(model, path).run(crops[:1]), first)
    assert provider.built == [(1, 1)]
    other = network(with_other_weights(model), path).run(crops[:1])
    assert len(provider.built) == 2
    assert not np.allclose(other, first)


def test_an_engine_that_tensorrt_refuses_is_thrown_away_and_built_again(
    session_bundle, crops, provider, tmp_path, caplog
):
    loaded(session_bundle, cache_dir=tmp_path).infer(crops[:1])
    provider.release = 2
    loaded(session_bundle, cache_dir=tmp_path).infer(crops[:1])
    assert len(provider.built) == 2
    assert "thrown away" in caplog.text and "could not deserialize" in caplog.text
    loaded(session_bundle, cache_dir=tmp_path).infer(crops[:1])
    assert len(provider.built) == 2


def test_a_damaged_entry_never_reaches_tensorrt(session_bundle, crops, provider, tmp_path):
    loaded(session_bundle, cache_dir=tmp_path).infer(crops[:1])
    for entry in (tmp_path / "compiled").iterdir():
        entry.write_bytes(entry.read_bytes()[:-9] + b"x" * 9)
    loaded(session_bundle, cache_dir=tmp_path).infer(crops[:1])
    assert len(provider.built) == 2


def test_a_session_that_fails_with_nothing_kept_is_not_tried_twice(tmp_path):
    tried = []

    def fails(options):
        tried.append(options)
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        TensorRTSession(fails, device="TENSORRT", cache_dir=tmp_path, options={}, contents=(b"model",))
    assert len(tried) == 1


def test_where_no_folder_can_be_made_engines_are_not_kept(tmp_path, monkeypatch, caplog):
    def full(**_how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reid_edge.runtime.engines.onnxruntime_tensorrt.tempfile.TemporaryDirectory", full)
    given = []
    session = TensorRTSession(given.append, device="TENSORRT", cache_dir=tmp_path, options={}, contents=(b"model",))
    session.keep((1,))
    assert given == [{}]
    assert "No space left on device" in caplog.text


def test_auto_on_tensorrt_takes_fp16_and_agrees_with_the_checkpoint(session_bundle, provider, tmp_path):
    extractor = Extractor(session_bundle, device="tensorrt", cache_dir=tmp_path)
    assert extractor.artifact.name == "onnxruntime/fp16"
    extractor.warm_up(8)
    assert len(provider.built) == 1
