"""Which connections are closed for others, by random ones and by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.gallery.connection_limit import MOST_OF_A_NAME, ConnectionLimit, Peer, address_of


class Peers:
    """Peers that note which of them were dropped."""

    def __init__(self):
        self.dropped = []

    def peer(self, address="a", *, idle=False):
        peer = Peer(address, lambda: self.dropped.append(peer), idle=idle)
        return peer


@pytest.fixture
def peers():
    return Peers()


def test_of_those_who_send_nothing_the_oldest_is_closed(peers):
    limit = ConnectionLimit(80)  # 20 unidentified, 10 of an address
    crowd = [peers.peer("attacker") for _ in range(300)]
    for each in crowd:
        limit.add(each)
    assert peers.dropped == crowd[:290]
    camera = peers.peer("camera")
    limit.add(camera)
    for _ in range(100):
        limit.add(peers.peer("attacker"))
    assert camera not in peers.dropped


def test_a_camera_at_the_attackers_address_has_time_to_say_who_it_is(peers):
    limit = ConnectionLimit(80)
    for _ in range(300):
        limit.add(peers.peer("a"))
    camera = peers.peer("a")
    limit.add(camera)
    for _ in range(9):
        limit.add(peers.peer("a"))
    assert camera not in peers.dropped
    limit.identify(camera, "camA")
    for _ in range(300):
        limit.add(peers.peer("a"))
    assert camera not in peers.dropped


def test_of_many_addresses_the_one_with_the_most_loses_one(peers):
    limit = ConnectionLimit(80)
    camera = peers.peer("camera")
    limit.add(camera)
    for number in range(500):
        limit.add(peers.peer(f"attacker{number % 5}"))
    assert limit.unidentified == 20
    assert camera not in peers.dropped


def test_one_certificate_has_only_so_many_places(peers):
    limit = ConnectionLimit(80)
    held = [peers.peer() for _ in range(MOST_OF_A_NAME + 3)]
    held[5].idle = True
    for each in held:
        limit.add(each)
        limit.identify(each, "camA")
    assert peers.dropped == [held[5], held[0], held[1]]


def test_if_all_places_are_taken_an_idle_connection_is_closed_for_the_next_or_else_the_next(peers):
    limit = ConnectionLimit(20)  # 12 identified
    held = [peers.peer(idle=True) for _ in range(12)]
    for number, each in enumerate(held):
        limit.add(each)
        limit.identify(each, f"cam{number % 4}")
    late = peers.peer()
    limit.add(late)
    limit.identify(late, "late")
    assert peers.dropped == [held[0]]
    for each in held:
        each.idle = False
    later = peers.peer()
    limit.add(later)
    limit.identify(later, "later")
    assert peers.dropped == [held[0], later]


@given(st.lists(st.tuples(st.sampled_from("anli"), st.integers(0, 5), st.integers(0, 200)), max_size=300))
def test_there_are_never_more_than_there_may_be(steps):
    peers, limit, here = Peers(), ConnectionLimit(40), []
    for step, name, which in steps:
        here = [each for each in here if each not in peers.dropped]
        each = here[which % len(here)] if here else None
        if step == "a":
            here.append(peers.peer(f"address{name}"))
            limit.add(here[-1])
        elif each and step == "n" and each.name is None:
            limit.identify(each, f"cam{name}" if name else "")
        elif each and step == "l":
            limit.remove(each)
            here.remove(each)
        elif each:
            each.idle = not each.idle
        assert limit.unidentified <= 10
        assert limit.identified <= 30
        left = [each for each in here if each not in peers.dropped]
        assert limit.unidentified + limit.identified == len(left)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("10.0.0.7", 5), "10.0.0.7"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("::ffff:10.0.0.7", 5, 0, 0), "10.0.0.7"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_an_address_is_a_host_or_the_network_of_which_it_has_all(peer, address):
    assert address_of(peer) == address
