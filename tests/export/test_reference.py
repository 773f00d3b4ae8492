from dataclasses import replace

import pytest

from reid_edge.errors import ParityError
from reid_edge.export.calibration import shipped_set
from reid_edge.export.reference import make_reference
from reid_edge.progress import silent
from reid_edge.tuning_record import Execution
from tests.runtime.test_golden import drifted


@pytest.fixture(scope="module")
def reference(checkpoint):
    return make_reference(checkpoint, shipped_set(checkpoint, checkpoint.info.size), silent)


def turned(reference, cosine):
    return replace(reference, golden_features=drifted(reference.golden_features, cosine))


def as_tuned(artifact, **changes):
    return replace(artifact, precision="tuned", parity=None, verdict=None, **changes)


def test_a_tuned_file_in_float_has_parity_and_a_verdict(reference, session_bundle):
    tuned = as_tuned(session_bundle.artifact("openvino", "fp32"), execution=Execution())
    checked = reference.check(session_bundle, tuned)
    assert checked.parity.cosine_min > 0.99999
    assert checked.verdict.verdict == "accepted"


def test_a_tuned_file_in_float32_that_drifts_is_refused_whatever_its_verdict(reference, session_bundle):
    tuned = as_tuned(session_bundle.artifact("openvino", "fp32"), execution=Execution())
    with pytest.raises(ParityError, match=r"openvino/tuned does not compute .* at least 0\.99999 expected"):
        turned(reference, 0.99995).check(session_bundle, tuned, keep_rejected=True)


def test_a_tuned_file_in_float16_may_differ_by_its_rounding(reference, session_bundle):
    tuned = as_tuned(session_bundle.artifact("onnxruntime", "fp16"), execution=Execution(float_type="f16"))
    assert turned(reference, 0.99995).check(session_bundle, tuned).verdict is not None
    with pytest.raises(ParityError, match=r"at least 0\.9999 expected"):
        turned(reference, 0.9995).check(session_bundle, tuned)


def test_a_tuned_file_with_int8_is_judged_by_its_verdict_alone(reference, session_bundle):
    tuned = as_tuned(session_bundle.artifact("openvino", "int8"), int8=("conv1",), execution=Execution())
    checked = reference.check(session_bundle, tuned)
    assert checked.parity.cosine_min < 0.9999
    assert checked.verdict.verdict == "accepted"
