"""One after the other, in the order of asking: who waits for a model, and behind how many. Knows no models."""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class FairQueue:
    """A queue for something that serves one at a time; threads that wait are served in the order in which they came."""

    def __init__(self):
        self.line: deque[object] = deque()
        self.changed = threading.Condition()

    def wait(self, ticket: object, given_up: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """Yields how many are before this ticket, whenever that changes or a second has passed, until it is none."""
        with self.changed:
            self.line.append(ticket)
        try:
            while (before := self.line.index(ticket)) and not given_up():
                yield before
                moved = lambda now=before: given_up() or self.line.index(ticket) != now
                with self.changed:
                    self.changed.wait_for(moved, timeout=1)
        except BaseException:
            self.leave(ticket)
            raise

    def leave(self, ticket: object) -> None:
        """Ends this ticket's turn, or its waiting; the next one is served."""
        with self.changed:
            if ticket in self.line:
                self.line.remove(ticket)
            self.changed.notify_all()

    def wake(self) -> None:
        """Lets those who wait look whether they have given up."""
        with self.changed:
            self.changed.notify_all()

    @contextmanager
    def at_once(self) -> Iterator[bool]:
        """A turn if nobody has one or waits, else False: for what would rather give up than wait."""
        ticket = object()
        with self.changed:
            free = not self.line
            if free:
                self.line.append(ticket)
        try:
            yield free
        finally:
            self.leave(ticket)


KNOWN: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def queue_of(model: object) -> FairQueue:
    """The queue of this model. Its adapter is on or off for everybody, so that two answers at once would mix."""
    return KNOWN.setdefault(model, FairQueue())
