"""``reid-edge outbox``: list, move and discard."""

import json
from pathlib import Path

import pytest

from reid_edge.upstream.outbox.destination import Destination, beside
from tests.commands import run_command as run
from tests.upstream.observing import observed
from tests.upstream.outboxes import opened

NORTH, SOUTH = (str(Destination.of("cam", f"mqtts://user:secret@{name}")) for name in ("north", "south"))


@pytest.fixture
def folder(tmp_path):
    for destination, numbers in ((NORTH, (1, 2)), (SOUTH, (3,))):
        with opened(tmp_path / "outbox.db", destination=destination) as outbox:
            outbox.put([observed(number) for number in numbers])
    return tmp_path


def test_list_shows_what_waits(folder):
    shown = run("outbox", "list", folder).stdout
    assert "mqtts://north" in shown
    assert "mqtts://south" in shown
    assert "secret" not in shown
    found = json.loads(run("outbox", "list", folder, "--json").stdout)
    assert [(each["gallery"], each["rows"]) for each in found] == [("mqtts://south", 1), ("mqtts://north", 2)]


def test_list_finds_the_cameras_of_this_user(folder, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".local/state/reid-edge").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("reid_edge.cli.state_folders.ROOTS", (Path("~/.local/state/reid-edge"),))
    assert "No outbox in" in run("outbox", "list").stdout
    (home / ".local/state/reid-edge/gate").symlink_to(folder)
    assert "mqtts://north" in run("outbox", "list").stdout


def test_move_asks_and_moves(folder):
    north = beside(folder / "outbox.db", NORTH)
    refused = run("outbox", "move", north, "--to", "mqtts://south")
    assert refused.returncode == 1
    assert "give --yes" in refused.stderr
    moved = json.loads(run("outbox", "move", north, "--to", "mqtts://south", "--yes", "--json").stdout)
    assert moved == {"moved": 2, "outbox": str(folder / "outbox.db")}
    found = json.loads(run("outbox", "list", folder, "--json").stdout)
    assert [(each["rows"], each["missing"]) for each in found] == [(3, 0), (0, 2)]


def test_discard_asks_and_discards(folder):
    north = beside(folder / "outbox.db", NORTH)
    assert run("outbox", "discard", north).returncode == 1
    assert "2 observations discarded" in run("outbox", "discard", north, "--yes").stdout
    asked = run("outbox", "discard", north, "--undeclared").stderr
    assert "Discard 0 observations" in asked and "gaps that count 2 more" in " ".join(asked.split())
    assert json.loads(run("outbox", "discard", north, "--undeclared", "--yes", "--json").stdout) == {"discarded": 0}
    assert len(json.loads(run("outbox", "list", folder, "--json").stdout)) == 1


@pytest.mark.parametrize("destination", [NORTH, SOUTH], ids=["beside", "in use"])
def test_discard_undeclared_leaves_nothing_of_the_outbox(folder, destination):
    path = beside(folder / "outbox.db", destination) if destination == NORTH else folder / "outbox.db"
    assert path.exists()
    assert run("outbox", "discard", path, "--undeclared", "--yes").returncode == 0
    assert list(folder.glob(f"{path.name}*")) == []
