"""Two real processes that talk over gloo against one that does it all."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as group
from torch import multiprocessing, nn

from reid_edge.errors import SettingsError, TrainingError
from reid_edge.training import distributed
from reid_edge.training.distributed import synchronise_batch_norms
from reid_edge.training.settings import BatchSettings, LossSettings, OptimiserSettings, RunSettings
from tests.training.steps import make_stepper, small_run, take, tensors

CPU = torch.device("cpu")
PROCESSES = 2
STEPS = 6
RUNS = {
    "triplet": small_run(loss=LossSettings(triplet=0.5, entropy=0.05), run=RunSettings(seed=3, ema=0.9)),
    "mutual": small_run(
        loss=LossSettings(triplet=0.5, triplet_margin=None, mutual=1.0),
        optimiser=OptimiserSettings(name="amsgrad", learning_rate=0.001),
    ),
}


def run_steps(config):
    stepper = take(make_stepper(config, dtype=torch.float64), config, range(STEPS))
    state = tensors(stepper.state_dict())
    return state, stepper.read()


def weighted(values):
    """A loss that treats each row in another way and couples the rows."""
    return (values * torch.arange(1.0, len(values) + 1, dtype=values.dtype)[:, None]).sum(0).square().sum()


def normalised_by(norm, x, rows):
    """Three batches, the last one judged: outputs, gradients, running statistics."""
    x = x.clone().requires_grad_()
    for _ in range(3):
        out = norm(x)
    loss = (
        (
            out
            * torch.linspace(-1, 2, rows.numel(), dtype=x.dtype).view_as(rows)[
                distributed.rank() :: distributed.world()
            ]
        )
        .square()
        .sum()
    )
    loss.backward()
    return {"out": out.detach(), "gradient": x.grad, "weight gradient": norm.weight.grad, **norm.state_dict()}


def bare_norm(features):
    norm = (nn.BatchNorm2d if features.ndim == 4 else nn.BatchNorm1d)(3, momentum=0.3).double()
    norm.weight.data.copy_(torch.tensor([0.5, 1.0, 2.0]))
    return nn.Sequential(norm)


def rows_of(shape):
    # Far from zero: a variance from E[x²] − E[x]² would lose its digits.
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 0.01 + 100


def work(rank, port, folder):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(PROCESSES), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    found = {}
    with distributed.joined(CPU):
        found["place"] = (distributed.rank(), distributed.world())
        found["any"] = [distributed.any_of(flag, CPU) for flag in (rank == 1, False, True)]
        mine = torch.full((2, 3), float(rank + 1), dtype=torch.float64, requires_grad=True)
        everyone = distributed.gathered(mine)
        weighted(everyone).backward()
        found["gathered"], found["gradient"] = everyone.detach(), mine.grad
        found["whole numbers"] = distributed.gathered(torch.tensor([rank, 7]))
        values = [torch.full((2, 2), float(rank)), torch.full((3,), 10.0 * rank, dtype=torch.float64)]
        distributed.average(values)
        found["average"] = values
        layer = nn.Linear(2, 2)
        nn.init.constant_(layer.weight, rank + 5.0)
        distributed.share_state(layer)
        found["shared"] = layer.weight.detach()
        for shape in ((6, 3), (6, 3, 4, 2)):
            x = rows_of(shape)
            norm = synchronise_batch_norms(bare_norm(x), CPU)[0]
            found[f"norm {len(shape)}"] = normalised_by(norm, x[rank::PROCESSES], x)
        for name, config in RUNS.items():
            found[name] = run_steps(config)
        try:
            make_stepper(small_run(batch=BatchSettings(size=3)))
        except SettingsError as error:
            found["odd batch"] = str(error)
        try:
            make_stepper(small_run(run=RunSettings(graph="on")))
        except SettingsError as error:
            found["graph"] = str(error)
        distributed.wait_for_all()
    found["left"] = distributed.world()
    torch.save(found, folder / f"{rank}.pt")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(work, (free_port(), folder), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


@pytest.mark.slow
def test_processes_join_and_leave(found):
    assert [each["place"] for each in found] == [(0, 2), (1, 2)]
    assert [each["left"] for each in found] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one_does_with_the_whole_batch(found, name):
    state, figures = run_steps(RUNS[name])
    for process in found:
        theirs, their_figures = process[name]
        assert theirs.keys() == state.keys()
        for key, tensor in state.items():
            if not key.startswith("sums"):
                torch.testing.assert_close(theirs[key], tensor, rtol=1e-6, atol=1e-7, msg=key)
        for key, value in figures.items():
            # The spread of features is of a process's own images.
            assert their_figures[key] == pytest.approx(value, rel=1e-5) or key == "spread", key


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_processes_hold_the_same_bits(found, name):
    (one, figures), (other, other_figures) = (each[name] for each in found)
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert figures == other_figures


@pytest.mark.slow
def test_gathered_values_and_gradients(found):
    whole = torch.tensor([[1.0] * 3, [1.0] * 3, [2.0] * 3, [2.0] * 3], dtype=torch.float64, requires_grad=True)
    weighted(whole).backward()
    for rank, process in enumerate(found):
        assert torch.equal(process["gathered"], whole)
        # Both processes computed the loss: its gradient arrives twice, and averaging halves it.
        assert torch.equal(process["gradient"] / PROCESSES, whole.grad[2 * rank : 2 * rank + 2])
        assert process["whole numbers"].tolist() == [0, 7, 1, 7]


@pytest.mark.slow
def test_average_keeps_dtypes_and_shapes(found):
    for process in found:
        small, large = process["average"]
        assert torch.equal(small, torch.full((2, 2), 0.5))
        assert torch.equal(large, torch.full((3,), 5.0, dtype=torch.float64))


@pytest.mark.slow
def test_first_process_s_weights_are_everyone_s(found):
    assert all(torch.equal(process["shared"], torch.full((2, 2), 5.0)) for process in found)


@pytest.mark.slow
def test_any_of(found):
    assert all(process["any"] == [True, False, True] for process in found)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 2)])
def test_shared_norm_is_torch_s_batch_norm_of_all_rows(found, shape):
    x = rows_of(shape)
    expected = normalised_by(bare_norm(x)[0], x, x)
    theirs = [process[f"norm {len(shape)}"] for process in found]
    for name in ("out", "gradient"):
        joined = torch.empty_like(x)
        for rank, each in enumerate(theirs):
            joined[rank::PROCESSES] = each[name]
        torch.testing.assert_close(joined, expected[name], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(theirs[0]["weight gradient"] + theirs[1]["weight gradient"], expected["weight gradient"])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for each in theirs:
            torch.testing.assert_close(each[name], expected[name], rtol=1e-9, atol=0)


@pytest.mark.slow
def test_batch_that_cannot_be_shared_evenly(found):
    assert found[0]["odd batch"].startswith("batch.size is 3, which 2 processes cannot share evenly")


@pytest.mark.slow
def test_graph_of_several_processes(found):
    assert "run.graph is 'on', but the device is a CPU" in found[0]["graph"]


def test_alone_everything_is_the_identity(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    tensor = torch.ones(2, requires_grad=True)
    with distributed.joined(CPU):
        assert (distributed.rank(), distributed.world()) == (0, 1)
        assert distributed.gathered(tensor) is tensor
        assert distributed.summed(tensor) is tensor
        assert distributed.any_of(True, CPU)
        distributed.average([tensor])
        distributed.share_state(nn.Linear(1, 1))
        distributed.wait_for_all()
    norms = nn.Sequential(nn.BatchNorm2d(2))
    assert type(synchronise_batch_norms(norms, CPU)[0]) is nn.BatchNorm2d


def test_half_an_environment(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(SettingsError, match=r"LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set; .*torchrun"),
        distributed.joined(CPU),
    ):
        pass


def test_others_cannot_be_reached(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        values = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(TrainingError, match=f"process 0 of 2 cannot join .*:{port}"), distributed.joined(CPU):
            pass
    assert not group.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_device_without_a_gpu():
    assert distributed.pick_device("auto") == distributed.pick_device("cpu") == CPU
    with pytest.raises(SettingsError, match=r"no GPU here; .*--device cpu"):
        distributed.pick_device("cuda")
