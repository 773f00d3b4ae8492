"""Whose an outbox is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.upstream.outbox.destination import Destination, beside, files_beside, no_gallery, place


@pytest.mark.parametrize(
    "same",
    [
        ("mqtts://broker.example", "mqtts://Broker.example:8883", "mqtts://broker.example/"),
        ("https://gallery", "https://gallery:8443"),
        (
            "postgresql://reid@db/reid",
            "postgres://other:secret@DB:5432/reid?sslmode=verify-full",
            "postgresql://u:p?a/b@db/reid?password=x",
        ),
        ("milvus:http://h:19530", "milvus:http://user:token@h:19530"),
        (f"sqlite:{Path.cwd()}/g.db", "sqlite:g.db", "sqlite:./a/../g.db"),
        (f"milvus:{Path.cwd()}/m.db", "milvus:m.db"),
    ],
)
def test_an_address_is_the_same_however_it_is_written(same):
    assert len({place(uri) for uri in same}) == 1


@pytest.mark.parametrize(
    "others",
    [
        ("mqtts://a", "mqtts://b", "mqtts://a:1", "mqtt://a", "https://a"),
        ("postgresql://h/a", "postgresql://h/b", "postgresql:///a?host=/x", "postgresql:///a?host=/y"),
        ("sqlite:a.db", "sqlite:b.db", "milvus:a.db"),
        ("milvus:http://a:1", "milvus:https://a:1", "milvus:http://b:1"),
    ],
)
def test_other_galleries_have_other_addresses(others):
    assert len({place(uri) for uri in others}) == len(others)


passwords = st.text(st.characters(codec="ascii", exclude_characters="@"), min_size=6, max_size=20).filter(
    lambda text: text.strip().isascii() and "secret" not in text
)


@given(passwords, st.sampled_from(["postgresql://u:{}@h/d", "mqtts://u:{}@h", "milvus:http://u:{}@h:1"]))
def test_no_password_is_kept(password, form):
    secret = f"secret{password}"
    kept = place(form.format(secret))
    assert "secret" not in kept
    assert "u:" not in kept


def test_a_destination_comes_back_as_it_was_noted():
    noted = Destination.of("gate-north", "mqtts://broker:8883")
    assert str(noted) == "camera gate-north to mqtts://broker"
    assert Destination.parsed(str(noted)) == noted
    assert Destination.parsed("") is None


def test_files_of_other_destinations_lie_beside_the_outbox(tmp_path):
    path = tmp_path / "out[1].db"
    kept = [beside(path, f"camera {name} to mqtts://broker") for name in "abc"]
    second = kept[0].with_name(f"{kept[0].stem}-1a2b.db")  # the name was taken
    for file in (path, *kept, second, tmp_path / "other.12345678.db", tmp_path / "out[1].db.corrupt-1"):
        file.touch()
    assert list(files_beside(path)) == [*sorted(kept), second]
    assert len(set(kept)) == 3


@pytest.mark.parametrize(
    "address",
    ["s3cr3t@host", "u:s3cr3t@host", "u%3As3cr3t%40host", "u：s3cr3t＠host", "Http:/u:s3cr3t@h", "password=s3cr3t"],
)
def test_of_what_is_no_address_nothing_is_shown_that_may_be_a_password(address):
    assert "s3cr3t" not in no_gallery(address)
    assert "Did you mean" not in no_gallery(address)
