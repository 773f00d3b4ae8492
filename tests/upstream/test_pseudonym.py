import hashlib
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from reid_edge.errors import SettingsError
from reid_edge.upstream.pseudonym import camera_pseudonym, load_or_create_key

KEY = bytes(range(32))


def hmac_sha256(key: bytes, text: bytes) -> str:
    """RFC 2104, written out."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + text).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).hexdigest()


@pytest.mark.parametrize("name", ["camera", "front door", "Straße 5", ""])
def test_a_pseudonym_is_c_and_96_bits_of_the_hmac(name):
    assert camera_pseudonym(name, KEY) == "c" + hmac_sha256(KEY, name.encode())[:24]


def test_other_names_and_other_keys_give_other_pseudonyms():
    made = {camera_pseudonym(name, key) for name in ("a", "b") for key in (KEY, bytes(32))}
    assert len(made) == 4
    assert all(re.fullmatch(r"c[0-9a-f]{24}", one) for one in made)


def test_a_key_is_made_once_for_this_user_alone(tmp_path):
    path = tmp_path / "new" / "pseudonym.key"
    before = os.umask(0)
    try:
        key = load_or_create_key(path)
    finally:
        os.umask(before)
    assert len(key) == 32
    assert load_or_create_key(str(path)) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert bytes.fromhex(path.read_text().strip()) == key
    assert [one.name for one in path.parent.iterdir()] == ["pseudonym.key"]
    assert load_or_create_key(tmp_path / "another.key") != key


def test_processes_that_start_at_once_agree_on_one_key(tmp_path):
    code = "import sys; from reid_edge.upstream.pseudonym import *; print(load_or_create_key(sys.argv[1]).hex())"
    command = [sys.executable, "-c", code, tmp_path / "key"]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) for _ in range(4)
    ]
    keys = {process.communicate(timeout=60)[0].strip() for process in started}
    assert keys == {(tmp_path / "key").read_text().strip()}
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("content", [b"", b"short", b"zz" * 32, b"ab" * 31, b"ab" * 33, b"\xff" * 64])
def test_a_file_that_holds_no_key_is_kept_and_an_error(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="64 hexadecimal digits"):
        load_or_create_key(path)
    assert path.read_bytes() == content


def test_a_key_that_others_can_read_is_an_error(tmp_path):
    path = tmp_path / "key"
    load_or_create_key(path)
    path.chmod(0o640)
    with pytest.raises(SettingsError, match=r"mode 640.*chmod 600"):
        load_or_create_key(path)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "key", tmp_path):
        with pytest.raises(SettingsError, match=r"cannot read or write|Give a file"):
            load_or_create_key(path)
