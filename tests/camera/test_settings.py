import importlib
import re
from pathlib import Path

import msgspec
import pytest

from reid_edge.camera.settings import parse_settings, read_settings
from reid_edge.errors import SettingsError
from reid_edge.settings import overridden

DOCS = Path(__file__).parents[2] / "docs"
LEAST = {"source": {"uri": "rtsp://camera/1"}, "engine": {"bundle": "bundle"}}


def test_a_source_and_a_bundle_are_enough():
    settings = parse_settings(LEAST)
    assert settings.upstream.uri == "sqlite:gallery.db"
    assert settings.detector == parse_settings({**LEAST, "detector": {"kind": "motion"}}).detector


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"engine": {"bundle": "b"}}, "top level: object missing required field 'source'"),
        ({**LEAST, "sorce": {}}, "top level: object contains unknown field 'sorce'"),
        ({**LEAST, "gate": {"intervall_seconds": 1}}, "gate: object contains unknown field 'intervall_seconds'"),
        ({**LEAST, "engine": {"bundle": 7}}, "engine.bundle"),
        ({**LEAST, "engine": {"bundle": "b", "threads": 0}}, "engine.threads: expected 'int' >= 1"),
        ({**LEAST, "engine": {"bundle": "b", "precision": "fp8"}}, "engine.precision: expected one of auto, fp32"),
        ({**LEAST, "operation": {"listen": "0.0.0.0:80"}}, "operation.listen"),
        ({**LEAST, "camera": {"name": "a/b"}}, "camera.name"),
        ({**LEAST, "upstream": "mqtts://x"}, "upstream: expected 'object', got 'str'"),
        ({**LEAST, "detector": {"kind": "psychic"}}, "detector.kind: invalid value 'psychic'"),
        ({**LEAST, "filter": {"masks": [[[0, 0], [1, 1]]]}}, "filter.masks"),
    ],
)
def test_the_key_that_is_wrong_is_named(tables, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        parse_settings(tables, origin="camera.toml")


def test_options_go_before_the_file():
    tables = overridden({"source": {"uri": "a", "loop": True}}, {"source.uri": "b", "engine.bundle": "c", "x.y": None})
    assert tables == {"source": {"uri": "b", "loop": True}, "engine": {"bundle": "c"}}


def test_an_option_for_a_section_that_is_no_table_is_left_to_the_check():
    with pytest.raises(SettingsError, match="source"):
        parse_settings(overridden({"source": "video.avi"}, {"source.uri": "b"}))


@pytest.mark.parametrize("content", [None, b"[source\n", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "camera.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"camera\.toml"):
        read_settings(path)


def test_systemd_says_where_state_is_kept(monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/reid-edge/north")
    assert parse_settings(LEAST).state_dir == Path("/var/lib/reid-edge/north")
    named = parse_settings({**LEAST, "operation": {"state_dir": "/data"}})
    assert named.state_dir == Path("/data")


def test_state_of_two_cameras_of_one_user_is_kept_apart(monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    north, south = (parse_settings({**LEAST, "camera": {"name": name}}).state_dir for name in ("north", "south"))
    assert north != south


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "-option", "a/b", ""])
def test_a_name_that_leads_out_of_the_state_folder_or_is_an_option_is_refused(name):
    with pytest.raises(SettingsError, match=r"camera\.name: expected 1 to 64 letters.*begin with none of"):
        parse_settings({**LEAST, "camera": {"name": name}})


def test_on_a_file_system_without_case_two_cameras_do_not_share_a_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = parse_settings({**LEAST, "camera": {"name": "gate"}})
    folder = settings.state_dir
    assert folder == tmp_path / ".local/state/reid-edge/gate"
    folder.mkdir(parents=True)
    assert settings.state_dir == folder
    (folder.parent / "Gate").mkdir()
    assert settings.state_dir == folder, "here they are two"
    (folder.parent / "gate").rmdir()
    monkeypatch.setattr(Path, "is_dir", lambda _: True)  # what a file system says that folds case
    with pytest.raises(SettingsError, match=r"the folder of 'gate' is that of 'Gate'.*--state-dir"):
        _ = settings.state_dir


@pytest.fixture
def make_settings(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("make_settings")


def test_the_documented_settings_are_those_of_the_code(make_settings):
    text = (DOCS / "camera.md").read_text(encoding="utf-8")
    assert make_settings.page(text) == text, "run: python docs/make_settings.py"


def test_the_documented_settings_are_valid_and_the_defaults(make_settings, tmp_path):
    path = tmp_path / "camera.toml"
    path.write_text("\n".join(make_settings.settings()), encoding="utf-8")
    settings = parse_settings(read_settings(path))
    assert settings.gate == parse_settings(LEAST).gate
    assert settings.upstream == parse_settings(LEAST).upstream


def test_what_is_documented_as_unset_can_be_set(make_settings, tmp_path):
    path = tmp_path / "camera.toml"
    path.write_text("\n".join(line.removeprefix("# ") for line in make_settings.settings()), encoding="utf-8")
    settings = parse_settings(read_settings(path))
    assert settings.upstream.tls.key == Path("/etc/reid-edge/camera.key")


def test_settings_can_be_written_down_again():
    settings = parse_settings(LEAST)
    built = msgspec.to_builtins(settings, enc_hook=str)
    assert parse_settings(built) == settings
