import pytest

from helpers.panels.door import AWAY_SECONDS, FORGOTTEN_SECONDS, PREPARING_SECONDS, PRESENT_SECONDS, Admission, Door


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_few_panels_are_prepared_at_a_time_and_the_rest_know_their_place(clock):
    door = Door(30, 2, clock)
    places = [door.knock(f"visitor {number}") for number in range(5)]
    assert places == [
        Admission("in"),
        Admission("in"),
        Admission("waiting", 2),
        Admission("waiting", 3),
        Admission("waiting", 4),
    ]
    door.opened("visitor 0")
    assert door.knock("visitor 3") == Admission("waiting", 2), "the one before comes first, whoever asks"
    assert door.knock("visitor 2") == Admission("in") and door.knock("visitor 3").kind == "waiting"


def test_all_of_a_class_come_in_however_they_ask(clock):
    door, inside = Door(30, 2, clock), []
    waiting = [f"visitor {number}" for number in range(30)]
    while waiting:
        came = [visitor for visitor in reversed(waiting) if door.knock(visitor).kind == "in"]
        assert 0 < len(came) <= 2 or not inside
        inside += came
        for visitor in came:
            door.opened(visitor)
            waiting.remove(visitor)
        clock.now += 2
    assert len(inside) == len(set(inside)) == 30 == len(door.inside)


def test_a_full_room_says_so_until_somebody_leaves(clock):
    door = Door(2, 2, clock)
    for visitor in ("one", "two"):
        assert door.knock(visitor).kind == "in"
        door.opened(visitor)
        door.look(visitor, True)
    clock.now = 10 * AWAY_SECONDS
    assert [door.knock(visitor) for visitor in ("three", "four")] == [Admission("full", 0), Admission("full", 1)]
    door.leave("one")
    assert door.knock("four") == Admission("full", 1), "the place is the third's"
    assert door.knock("three") == Admission("in")


def test_a_place_that_nobody_looks_at_goes_to_who_needs_it(clock):
    door = Door(1, 1, clock)
    door.knock("one")
    door.opened("one")
    door.look("one", True)
    door.look("one", False)
    clock.now = AWAY_SECONDS - 1
    assert door.knock("two").kind == "full"
    clock.now = AWAY_SECONDS
    assert door.knock("two") == Admission("in", 0, "one") and list(door.inside) == ["two"]


def test_a_panel_that_takes_long_to_prepare_is_not_given_away(clock):
    door = Door(1, 1, clock)
    door.knock("one")
    clock.now = AWAY_SECONDS + 1
    assert door.gone() == [] and door.knock("two").kind == "full"
    door.opened("one")
    assert door.gone() == [], "its page has to be shown yet"
    clock.now += AWAY_SECONDS
    assert door.gone() == ["one"]


def test_a_visitor_who_comes_again_has_one_place(clock):
    door = Door(1, 1, clock)
    assert door.knock("one").kind == "in"
    assert door.knock("one").kind == "waiting", "the panel is being prepared already"
    door.opened("one")
    assert door.knock("one") == Admission("in") and len(door.inside) == 1


def test_who_has_gone_away_holds_up_nobody(clock):
    door = Door(30, 1, clock)
    door.knock("one")
    door.knock("gone")
    clock.now = PRESENT_SECONDS
    door.knock("two")
    door.opened("one")
    assert door.knock("two").kind == "in"
    clock.now += FORGOTTEN_SECONDS
    door.knock("three")
    assert "gone" not in door.line
    clock.now += PREPARING_SECONDS
    assert door.knock("four").kind == "in", "a panel that never came blocks the door for a while only"
