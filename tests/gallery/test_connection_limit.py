"""Who is shown out, by random visitors and by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.gallery.door import MOST_OF_A_NAME, Door, Visitor, address_of


class Guests:
    """Visitors that note who was dropped."""

    def __init__(self):
        self.dropped = []

    def visitor(self, address="a", *, idle=False):
        visitor = Visitor(address, lambda: self.dropped.append(visitor), idle=idle)
        return visitor


@pytest.fixture
def guests():
    return Guests()


def test_those_who_say_nothing_push_out_one_another(guests):
    door = Door(80)  # 20 strangers, 10 of an address
    crowd = [guests.visitor("attacker") for _ in range(300)]
    for each in crowd:
        door.arrived(each)
    assert guests.dropped == crowd[:290]
    camera = guests.visitor("camera")
    door.arrived(camera)
    for _ in range(100):
        door.arrived(guests.visitor("attacker"))
    assert camera not in guests.dropped


def test_a_camera_at_the_attackers_address_has_time_to_say_who_it_is(guests):
    door = Door(80)
    for _ in range(300):
        door.arrived(guests.visitor("a"))
    camera = guests.visitor("a")
    door.arrived(camera)
    for _ in range(9):
        door.arrived(guests.visitor("a"))
    assert camera not in guests.dropped
    door.introduced(camera, "camA")
    for _ in range(300):
        door.arrived(guests.visitor("a"))
    assert camera not in guests.dropped


def test_of_many_addresses_the_one_with_the_most_gives_way(guests):
    door = Door(80)
    camera = guests.visitor("camera")
    door.arrived(camera)
    for number in range(500):
        door.arrived(guests.visitor(f"attacker{number % 5}"))
    assert door.strangers == 20
    assert camera not in guests.dropped


def test_one_certificate_has_only_so_many_places(guests):
    door = Door(80)
    held = [guests.visitor() for _ in range(MOST_OF_A_NAME + 3)]
    held[5].idle = True
    for each in held:
        door.arrived(each)
        door.introduced(each, "camA")
    assert guests.dropped == [held[5], held[0], held[1]]


def test_a_full_house_gives_an_idle_place_to_the_next_and_has_none_if_all_are_busy(guests):
    door = Door(20)  # 12 guests
    held = [guests.visitor(idle=True) for _ in range(12)]
    for number, each in enumerate(held):
        door.arrived(each)
        door.introduced(each, f"cam{number % 4}")
    late = guests.visitor()
    door.arrived(late)
    door.introduced(late, "late")
    assert guests.dropped == [held[0]]
    for each in held:
        each.idle = False
    later = guests.visitor()
    door.arrived(later)
    door.introduced(later, "later")
    assert guests.dropped == [held[0], later]


@given(st.lists(st.tuples(st.sampled_from("anli"), st.integers(0, 5), st.integers(0, 200)), max_size=300))
def test_the_house_is_never_fuller_than_it_may_be(steps):
    guests, door, here = Guests(), Door(40), []
    for step, name, which in steps:
        here = [each for each in here if each not in guests.dropped]
        each = here[which % len(here)] if here else None
        if step == "a":
            here.append(guests.visitor(f"address{name}"))
            door.arrived(here[-1])
        elif each and step == "n" and each.name is None:
            door.introduced(each, f"cam{name}" if name else "")
        elif each and step == "l":
            door.left(each)
            here.remove(each)
        elif each:
            each.idle = not each.idle
        assert door.strangers <= 10
        assert door.guests <= 30
        left = [each for each in here if each not in guests.dropped]
        assert door.strangers + door.guests == len(left)


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
