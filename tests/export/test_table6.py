"""Table 6 is 16 exports, minutes of work: here it has one or two narrow, shallow cells, by way of its constants."""

import shutil
from dataclasses import replace

import pytest
import torch

from reid_edge.bundle import open_bundle, write_manifest
from reid_edge.errors import OutputError, UsageError
from reid_edge.export import table6
from reid_edge.export.table6 import make_table, random_checkpoint
from reid_edge.manifest import RANDOM_WEIGHTS, PlanStamp
from reid_edge.osnet.shipped import usual_checkpoints
from reid_edge.progress import silent
from tests.export.tiny import SHALLOW

SIZE = (32, 16)
TRAINED, RANDOM = "osnet_x0_06_32x16", "osnet_x0_05_32x16"
PLAN = PlanStamp(
    library="tensorrt", version="10.9.0", device="", compute_capability="", built_precision={}, batches=(1, 8, 8)
)


def trained(width, size=SIZE, shift=0.01):
    """Random weights that pass for trained ones."""
    made = random_checkpoint(width, size)
    state = {name: tensor + shift if "weight" in name else tensor for name, tensor in made.state.items()}
    return replace(made, info=replace(made.info, dataset="a street"), state=state)


@pytest.fixture(scope="module", autouse=True)
def shallow():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table6, "VARIANT", SHALLOW)
        yield


with pytest.MonkeyPatch.context() as shallow_here:
    shallow_here.setattr(table6, "VARIANT", SHALLOW)
    CHECKPOINTS = [trained(0.05, (64, 32)), trained(0.06), trained(0.06, shift=0.02)]
    OTHER = trained(0.05)


def table_of(patch, *widths):
    patch.setattr(table6, "WIDTHS", widths)
    patch.setattr(table6, "RESOLUTIONS", (0.125,))


def stamp(path):
    return (path / "manifest.json").stat().st_mtime_ns


@pytest.fixture(scope="module")
def made(tmp_path_factory, shallow):
    """Interrupted after its first cell, then taken up again: the folder, and the first cell's time before and after."""
    folder = tmp_path_factory.mktemp("grid")

    def interrupted(text, _steps):
        def on_step():
            if "Table 6" in text:
                raise KeyboardInterrupt

        return on_step

    with pytest.MonkeyPatch.context() as patch:
        table_of(patch, 0.06, 0.05)
        with pytest.raises(KeyboardInterrupt):
            make_table(folder, CHECKPOINTS, interrupted)
        assert [path.name for path in folder.iterdir()] == [TRAINED]
        before = stamp(folder / TRAINED)
        paths = make_table(folder, CHECKPOINTS, silent)
    assert paths == [folder / TRAINED, folder / RANDOM]
    return folder, before, stamp(folder / TRAINED)


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "copy")


def test_the_cells_are_those_of_table_6():
    sizes = [table6.size_of_resolution(gamma) for gamma in table6.RESOLUTIONS]
    names = [table6.cell_name(width, size) for width in table6.WIDTHS for size in sizes]
    assert len(set(names)) == 16
    assert names[0] == "osnet_x1_256x128"
    assert names[7] == "osnet_x0_75_64x32"
    assert names[15] == "osnet_x0_25_64x32"


@pytest.mark.slow
def test_an_interrupted_export_goes_on_where_it_was(made):
    _, before, after = made
    assert before == after


@pytest.mark.slow
def test_a_cell_has_trained_weights_where_there_are_some_and_says_so_where_not(made):
    wide, narrow = (open_bundle(made[0] / name).manifest for name in (TRAINED, RANDOM))
    assert (wide.model.dataset, wide.model.checkpoint_sha256) == ("a street", CHECKPOINTS[1].sha256)
    assert narrow.model.dataset == RANDOM_WEIGHTS  # the checkpoint of that width was trained at another size
    assert (narrow.model.width, narrow.input.size) == (0.05, SIZE)
    assert {artifact.name for artifact in narrow.artifacts} == {"onnxruntime/fp32", "openvino/fp32"}


@pytest.mark.slow
def test_another_file_is_added_to_those_held(copy, monkeypatch):
    table_of(monkeypatch, 0.05)
    (path,) = make_table(copy, CHECKPOINTS, silent, formats=("onnx",), precisions=("fp16",))
    held = {artifact.name for artifact in open_bundle(path).manifest.artifacts}
    assert held == {f"{engine}/{precision}" for engine in ("onnxruntime", "openvino") for precision in ("fp32", "fp16")}


@pytest.mark.slow
def test_random_weights_give_way_to_trained_ones(copy, monkeypatch):
    table_of(monkeypatch, 0.05)
    (path,) = make_table(copy, [OTHER], silent, formats=("onnx",))
    assert open_bundle(path).manifest.model.dataset == "a street"


@pytest.mark.slow
def test_trained_weights_never_give_way_to_others(copy, monkeypatch):
    table_of(monkeypatch, 0.06)
    before = stamp(copy / TRAINED)
    with pytest.raises(OutputError, match=r"a street.*onnxruntime/fp32"):
        make_table(copy, [], silent, formats=("onnx",))
    assert stamp(copy / TRAINED) == before


@pytest.mark.slow
def test_trained_files_that_cannot_be_made_again_are_not_lost(copy, monkeypatch):
    table_of(monkeypatch, 0.06)
    manifest = open_bundle(copy / TRAINED).manifest
    tuned = replace(manifest.artifacts[0], precision="tuned")
    write_manifest(copy / TRAINED, replace(manifest, artifacts=(*manifest.artifacts, tuned)))
    before = stamp(copy / TRAINED)
    make_table(copy, CHECKPOINTS, silent, formats=("onnx",))  # holds all that is asked for
    with pytest.raises(OutputError, match="onnxruntime/tuned"):
        make_table(copy, CHECKPOINTS, silent, precisions=("fp16",))
    assert stamp(copy / TRAINED) == before


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"precision": "tuned"}, {"engine": "tensorrt", "precision": "int8", "plan": PLAN}])
@pytest.mark.parametrize("checkpoints", [CHECKPOINTS, [OTHER]], ids=["same", "trained"])
def test_what_cannot_be_made_again_of_random_weights_is_not_lost_either(copy, monkeypatch, changes, checkpoints):
    table_of(monkeypatch, 0.05)
    manifest = open_bundle(copy / RANDOM).manifest
    added = replace(manifest.artifacts[0], **changes)
    write_manifest(copy / RANDOM, replace(manifest, artifacts=(*manifest.artifacts, added)))
    before = stamp(copy / RANDOM)
    with pytest.raises(OutputError, match=added.name):
        make_table(copy, checkpoints, silent, precisions=("fp16",))
    assert stamp(copy / RANDOM) == before


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"half"), lambda path: path.unlink()])
def test_a_cell_with_a_broken_file_is_made_anew(copy, monkeypatch, damage):
    table_of(monkeypatch, 0.06)
    before = open_bundle(copy / TRAINED)
    damage(copy / TRAINED / "model.onnx")
    (path,) = make_table(copy, CHECKPOINTS, silent, formats=("onnx",))
    after = open_bundle(path)
    for entry in after.manifest.entries():
        after.read(entry)
    assert {one.name for one in after.manifest.artifacts} == {one.name for one in before.manifest.artifacts}


@pytest.mark.slow
def test_a_cell_that_must_not_be_replaced_is_found_before_any_is_made(copy, monkeypatch):
    table_of(monkeypatch, 0.05, 0.06)
    shutil.rmtree(copy / RANDOM)
    with pytest.raises(OutputError, match="a street"):
        make_table(copy, [], silent)
    assert not (copy / RANDOM).exists()


def test_random_weights_are_the_same_every_time_and_disturb_nobody():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = random_checkpoint(0.05, SIZE), random_checkpoint(0.05, SIZE)
    assert torch.equal(torch.rand(3), expected)
    assert first.sha256 == second.sha256


def test_what_ships_fits_a_cell():
    assert [(one.info.width, one.info.size) for one in usual_checkpoints()] == [(0.25, (256, 128))]


def test_a_precision_that_no_export_makes_is_an_error_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="got tuned"):
        make_table(tmp_path / "grid", [], silent, precisions=("tuned",))
    assert not list(tmp_path.iterdir())
