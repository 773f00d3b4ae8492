"""Roles in PostgreSQL: each can do its work, and nothing of what another is for."""

import contextlib
import time

import pytest

from reid_edge.errors import StoreError
from reid_edge.gallery.audit import record as audited
from reid_edge.gallery.audit import verify
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.deletion import Retention, erase_with_receipt
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.people import identify
from reid_edge.gallery.people_decisions import Operator, merge
from reid_edge.gallery.people_views import list_people
from reid_edge.gallery.person_erasure import erase_person
from reid_edge.gallery.search import query_by_feature, search
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.base import summarise
from reid_edge.upstream.message import decode_ack
from tests.gallery.stores import DIM, HOUR, MODEL, SECOND, batch, record, unit

ROLES = ("collector", "searcher", "eraser", "auditor", "operator")


@pytest.fixture
def opened_as(engines):
    """A gallery with the roles, and a function that opens it as one of them."""
    import psycopg

    from reid_edge.gallery.store.postgresql_roles import roles_sql

    postgresql = engines("postgresql")
    uri = postgresql.uri()
    owner = open_store(uri)
    with contextlib.closing(psycopg.connect(uri, autocommit=True)) as db:
        for _ in range(2):  # it can be run again
            db.execute(roles_sql())
        for role in ROLES:
            with contextlib.suppress(psycopg.errors.DuplicateObject):
                db.execute(f"CREATE ROLE test_{role} LOGIN IN ROLE reid_edge_{role}")
    with contextlib.ExitStack() as closing:
        closing.callback(postgresql.give_back, uri)
        closing.callback(owner.close)

        def open_as(role):
            store = open_store(uri.replace("postgres:@", f"test_{role}:@").replace("//postgres@", f"//test_{role}@"))
            closing.callback(store.close)
            assert store._connection.execute("SELECT current_user").fetchone() == (f"test_{role}",)
            return store

        yield open_as


def refused(store, statement):
    import psycopg

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        store._connection.execute(statement)


def test_each_role_does_its_work_and_no_other(opened_as):
    now_us = time.time_ns() // 1000
    collector, searcher, eraser, auditor = map(opened_as, ROLES[:4])
    receive = Collector(collector, expire_every_s=0).receive
    rows = [record(seq, at=now_us - HOUR) for seq in range(1, 6)]
    assert decode_ack(receive([batch(rows)])[0]).seqs == (1, 2, 3, 4, 5)
    collector.set_retention_hours(5)
    assert Retention(collector).apply() == 0

    query = query_by_feature(unit(DIM, seed=1), MODEL, image_sha256="f" * 64)
    assert len(search(searcher, query, selection=Selection(), purpose="a test", now_us=now_us)) == 5
    assert summarise(searcher).observations == 5

    receipt = erase_with_receipt(eraser, Selection(track=3), purpose="a right", now_us=now_us)
    assert receipt.observations == 1
    assert decode_ack(receive([batch([rows[2]])])[0]).seqs == (3,)
    assert collector.span(Selection()).observations == 4

    collector.set_retention_hours(0.5)
    assert Retention(collector).apply() == 4
    assert [line.action for line in auditor.audit_entries(9)] == ["search", "erase asked", "erase", "expire"]
    assert verify(auditor).faults == ()


def test_nobody_rewrites_the_audit_and_only_the_auditor_reads_it(opened_as):
    stores = {role: opened_as(role) for role in ROLES}
    for role, store in stores.items():
        for statement in (
            "UPDATE reid_edge.audit SET purpose = ''",
            "DELETE FROM reid_edge.audit",
            "TRUNCATE reid_edge.audit",
            "ALTER TABLE reid_edge.audit DISABLE TRIGGER ALL",
            "DROP TABLE reid_edge.audit",
        ):
            refused(store, statement)
        if role != "auditor":
            with pytest.raises(StoreError, match="permission denied"):
                store.audit_entries(1)


def test_the_searcher_deletes_and_writes_nothing_and_the_auditor_sees_no_observation(opened_as):
    searcher, eraser, auditor = map(opened_as, ROLES[1:4])
    for statement in (
        "DELETE FROM reid_edge.observations",
        "UPDATE reid_edge.observations SET track = 1",
        "DELETE FROM reid_edge.erasures",
        "UPDATE reid_edge.settings SET value = '1'",
        "DELETE FROM reid_edge.gaps",
    ):
        refused(searcher, statement)
    with pytest.raises(StoreError, match="permission denied"):
        searcher.erase(Selection(track=1), now_us=1)
    refused(eraser, "DELETE FROM reid_edge.erasures")
    refused(eraser, "UPDATE reid_edge.erasures SET until_us = 0, selection = '{}'")
    refused(eraser, "INSERT INTO reid_edge.settings VALUES ('retention_hours', '1')")
    for table in ("observations", "erasures", "gaps"):
        refused(auditor, f"SELECT * FROM reid_edge.{table}")


@pytest.mark.parametrize("role", ["collector", "searcher", "eraser"])
def test_who_may_add_to_the_audit_cannot_end_it_or_make_it_unreadable(opened_as, role):
    import psycopg

    store, auditor = opened_as(role), opened_as("auditor")
    line = "INSERT INTO reid_edge.audit VALUES (%s, %s, 'somebody', 'search', '', %s, %s)"
    audited(store, "search", {}, at_us=1)
    for number in (2**63 - 1, 2_000_000, 0, -5):
        with pytest.raises(psycopg.errors.RaiseException, match="does not follow line 1"):
            store._connection.execute(line, (number, 1, "{}", ""))
    store._connection.execute(line, (2, 2**62, "no json", "no hash"))
    audited(store, "search", {}, at_us=3)
    assert [entry.number for entry in auditor.audit_entries(9)] == [1, 2, 3]
    assert verify(auditor).faults[0].startswith("line 2 does not follow")


def test_an_operator_decides_of_people_and_deletes_nothing_and_people_go_with_what_an_eraser_deletes(opened_as):
    now_us = time.time_ns() // 1000
    collector, searcher, eraser, auditor, operator = map(opened_as, ROLES)
    Collector(collector).receive([batch([record(seq, at=now_us - HOUR + seq * 10 * SECOND) for seq in range(1, 6)])])
    identify(collector, now_us=now_us)
    identify(operator, now_us=now_us, again=True)
    merge(operator, [1, 2], Operator(at_us=now_us, purpose="a test"))
    refused(operator, "DELETE FROM reid_edge.observations")
    assert len(list_people(searcher, selection=Selection(), purpose="a test", now_us=now_us)) == 4
    with pytest.raises(StoreError, match="permission denied"):
        merge(searcher, [1, 3], Operator(at_us=now_us, purpose="a test"))
    with pytest.raises(StoreError, match="permission denied"):
        auditor.assignments()
    assert erase_person(eraser, 1, purpose="a right", now_us=now_us).observations == 2
    assert {one.person for one in searcher.assignments()} == {3, 4, 5} and searcher.decisions() == []
    assert Retention(collector).apply() == 0
    collector.set_retention_hours(0.5)
    assert Retention(collector).apply() == 3 and searcher.assignments() == []
