"""The public surface: its names are pinned, importing it costs nothing, and the examples of docs/api.md run."""

import ast
import importlib
import re
import subprocess
import sys

import pytest

import reid_edge
from reid_edge import errors
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_public_names_are_these():
    assert reid_edge.__all__ == [
        "Extractor", "Extraction", "Bundle", "open_bundle",
        "Observation", "Outbox", "Delivery", "MqttTransport", "HttpTransport", "LocalTransport",
        "Store", "open_store", "Collector", "Selection", "query_by_feature", "search",
        "Labelled", "Ranking", "rank",
        "Checkpoint", "load_checkpoint", "save_checkpoint", "import_torchreid", "ExportOptions", "export_bundle",
        "errors",
    ]  # fmt: skip


@pytest.mark.parametrize("name", reid_edge.__all__)
def test_a_public_name_is_there_has_a_docstring_and_a_line_in_the_page(name):
    assert getattr(reid_edge, name).__doc__
    assert f"`{name}" in PAGE or f"`reid_edge.{name}" in PAGE


def test_type_checkers_see_what_programs_get():
    tree = ast.parse((REPOSITORY / "reid_edge" / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert set(seen) == set(reid_edge.__all__)
    for name, module in seen.items():
        if name != "errors":
            assert getattr(reid_edge, name) is getattr(importlib.import_module(module), name)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"reid_edge\.__all__"):
        reid_edge.extractor  # noqa: B018


def test_without_its_packages_a_name_says_which_extra_installs_them():
    code = "import sys; sys.modules['torch'] = None; import reid_edge; reid_edge.load_checkpoint"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: reid_edge.load_checkpoint needs the package 'torch'" in run.stderr
    assert "pip install 'reid-edge[export]'" in run.stderr


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, reid_edge, reid_edge.errors; print([m for m in ('numpy', 'cv2', 'torch') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_error_stands_in_the_tree_at_the_top_of_its_module():
    for name, value in vars(errors).items():
        if isinstance(value, type):
            assert name in errors.__doc__
            assert issubclass(value, errors.ReidEdgeError)


def test_the_pages_examples_run(session_bundle, tmp_path):
    (tmp_path / "osnet_x0_25_256x128").symlink_to(session_bundle.path)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert re.fullmatch(r"door 1 (1\.0|0\.999)\d*\n", run.stdout), run.stdout
