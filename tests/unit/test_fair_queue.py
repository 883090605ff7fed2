import gc
import threading

from helpers.generate.fair_queue import KNOWN, FairQueue, queue_of


class Thing:
    pass


def test_who_comes_first_is_served_first_and_the_rest_are_told_how_many_are_before_them():
    queue, served, heard = FairQueue(), [], []
    assert list(queue.wait("first")) == []

    def visit(name):
        heard.append((name, next(waiting := queue.wait(name))))
        ready.release()
        list(waiting)
        served.append(name)
        queue.leave(name)

    ready, threads = threading.Semaphore(0), []
    for name in ("second", "third"):
        threads.append(threading.Thread(target=visit, args=(name,)))
        threads[-1].start()
        ready.acquire()
    assert heard == [("second", 1), ("third", 2)] and served == []
    queue.leave("first")
    for thread in threads:
        thread.join(timeout=10)
    assert served == ["second", "third"] and not queue.line


def test_who_gives_up_need_not_wait_until_the_queue_moves(monkeypatch):
    queue, gone = FairQueue(), threading.Event()
    assert list(queue.wait("first")) == []
    whole, asleep = queue.changed.wait_for, threading.Event()
    monkeypatch.setattr(queue.changed, "wait_for", lambda moved, timeout: asleep.set() or whole(moved))  # for ever
    second = threading.Thread(target=lambda: list(queue.wait("second", gone.is_set)), daemon=True)
    second.start()
    asleep.wait()
    gone.set()
    queue.wake()
    second.join(timeout=20)
    assert not second.is_alive()


class Person:
    """Somebody who asks so many questions, one after the other, and looks at what the panel shows meanwhile."""

    def __init__(self, queue, questions):
        self.queue, self.left, self.place = queue, questions, None

    def ask(self):
        self.left, self.ticket = self.left - 1, object()
        self.waiting = self.queue.wait(self.ticket)
        self.look()

    def look(self):
        self.place = next(self.waiting, 0)

    def leave(self):
        self.queue.leave(self.ticket)
        self.place = None


def test_who_asks_again_and_again_takes_turns_with_the_others_and_every_place_shown_is_true():
    queue = FairQueue()
    people = {"many": Person(queue, 6), "two": Person(queue, 2), "one": Person(queue, 1)}
    turns, shown = [], []
    for person in people.values():
        person.ask()
    while any(person.place is not None for person in people.values()):
        shown += [(name, len(turns), one.place) for name, one in people.items() if one.place is not None]
        (served,) = (name for name, person in people.items() if person.place == 0)
        turns.append(served)
        people[served].leave()
        if people[served].left:  # the next question at once
            people[served].ask()
        for name, person in people.items():
            if name != served and person.place is not None:
                person.look()
    assert turns == ["many", "two", "one", "many", "two", *["many"] * 4], "nobody waits for all six"
    for name, after, place in shown:
        assert turns[after:].index(name) == place, f"{name} was told {place} after {after} turns"


def test_who_gives_up_or_goes_away_leaves_the_line():
    queue = FairQueue()
    list(queue.wait("first"))
    waiting = queue.wait("second")
    next(waiting)
    waiting.close()
    assert list(queue.line) == ["first"]
    assert list(queue.wait("third", given_up=lambda: True)) == []
    assert queue.line[0] == "first"


def test_a_look_at_once_gives_up_when_somebody_is_served():
    queue = FairQueue()
    with queue.at_once() as free, queue.at_once() as second:
        assert free and not second
    with queue.at_once() as free:
        assert free


def test_two_panels_of_one_model_share_a_line_that_ends_with_the_model():
    one, other = Thing(), Thing()
    assert queue_of(one) is queue_of(one) is not queue_of(other)
    gc.collect()
    before = len(KNOWN)
    del one
    gc.collect()
    assert len(KNOWN) == before - 1
