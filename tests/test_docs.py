"""The pages speak of what is there: links, modules, and the table of imports."""

import importlib
import re
import runpy

import pytest

from tests.conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("deploy/*/*.md")])
PACKAGES = {path.name.removesuffix(".py") for path in (REPOSITORY / "reid_edge").iterdir()}


def _prose(page):
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(((?!https?:)[^)#\s]+)", _prose(page)):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["architecture.md", "development.md"])
def test_files_and_modules_that_a_page_names_are_there(name):
    text = _prose(REPOSITORY / "docs" / name)
    for path in re.findall(r"`((?:reid_edge|tests|docs|benchmarks|models|deploy)/[\w./-]+)`", text):
        assert "NAME" in path or (REPOSITORY / path).exists(), path
    for dotted in re.findall(r"`((?:\w+\.)+\w+)(?:\(\))?`", text):
        if dotted.split(".")[0] in PACKAGES and not dotted.endswith((".py", ".md", ".toml")):
            assert _found(f"reid_edge.{dotted}"), dotted


def _found(dotted):
    """Import the longest part of a dotted name that is a module, and look the rest up in it."""
    parts = dotted.split(".")
    for cut in range(len(parts), 1, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_the_table_of_imports_is_that_of_the_contracts():
    script = runpy.run_path(str(REPOSITORY / "docs" / "make_architecture.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), "run: python docs/make_architecture.py"
