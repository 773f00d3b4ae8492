"""The table of promises names a test for each, and each test that it names is there."""

import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "reliability.md"
HEAD = ("fault", "what happens", "test")


def _rows(page):
    """The table's rows, (fault, what happens, tests); headings of groups are left out."""
    rows = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in page if line.startswith("| ")]
    assert rows[0] == HEAD
    return [row for row in rows[1:] if not (row[0].startswith("**") and row[1:] == ("", ""))]


@pytest.fixture(scope="module")
def rows():
    return _rows(PAGE.read_text(encoding="utf-8").splitlines())


def test_every_row_says_what_happens_and_names_its_test(rows):
    assert rows
    for row in rows:
        assert len(row) == len(HEAD) and all(row), row
        assert re.fullmatch(r"(`tests/[\w/]+\.py::test_\w+` ?)+", row[2]), row


def test_every_test_that_it_names_exists(rows):
    named = {test for row in rows for test in re.findall(r"`([^`]+)`", row[2])}
    files = sorted({test.split("::")[0] for test in named})
    assert not [file for file in files if not (REPOSITORY / file).is_file()]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        *files,
    ]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    collected = {line.split("[")[0] for line in found.stdout.splitlines() if "::" in line}
    assert collected, found.stdout[-2000:] + found.stderr[-2000:]
    assert not named - collected
