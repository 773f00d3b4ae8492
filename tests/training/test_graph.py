import pytest
import torch

from reid_edge.errors import TrainingError
from reid_edge.training.graph import WARM_UP_STEPS, Repeated
from tests.training.software_graph import SoftwareGraph

CPU = torch.device("cpu")


def accumulating(recorder, **options):
    total = torch.zeros(2)

    def work(number, extra):
        total.add_(number if extra is None else number * extra)

    return total, Repeated(work, CPU, recorder, **options)


def test_recorded_work_sees_each_call_s_inputs():
    graph = SoftwareGraph()
    total, repeated = accumulating(graph)
    for number in range(8):
        repeated(torch.full((2,), float(number)), torch.tensor([1.0, 10.0]))
    assert total.tolist() == [28.0, 280.0]
    assert (graph.recordings, graph.replays) == (1, 8 - WARM_UP_STEPS)
    assert repeated.recorded


def test_forgotten_recording_is_made_anew():
    graph = SoftwareGraph()
    total, repeated = accumulating(graph)
    for number in range(10):
        repeated(torch.full((2,), float(number)), None)
        if number == 4:
            repeated.forget()
    assert total.tolist() == [45.0] * 2
    assert graph.recordings == 2


def test_another_shape():
    _, repeated = accumulating(SoftwareGraph())
    repeated(torch.ones(2), None)
    with pytest.raises(TrainingError, match=r"shapes 2, none, got 2, 2; use --set run\.graph=off"):
        repeated(torch.ones(2), torch.ones(2))
    with pytest.raises(TrainingError, match=r"got 1, none"):
        repeated(torch.ones(1), None)


def test_unrecorded_work_takes_any_shape():
    total, repeated = accumulating(None)
    repeated(torch.ones(2), None)
    repeated(torch.ones(1), torch.ones(2))
    assert total.tolist() == [2.0, 2.0]
    assert not repeated.recorded


def asking(recorder, **options):
    seen = []
    return seen, Repeated(lambda number: seen.append(number.item()), CPU, recorder, **options)


def test_work_that_cannot_be_recorded_goes_on_unrecorded_with_a_warning(caplog):
    seen, repeated = asking(SoftwareGraph())
    for number in range(6):
        repeated(torch.tensor(float(number)))
    assert seen == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "This step cannot be recorded as a CUDA graph and runs without, slower"
    ]


def test_work_that_must_be_recorded_and_cannot_be():
    _, repeated = asking(SoftwareGraph(), required=True)
    with pytest.raises(TrainingError, match=r"cannot be recorded as a CUDA graph .*run\.graph=off"):
        for number in range(6):
            repeated(torch.tensor(float(number)))
