"""Who may come in: a limit of visitors, few panels prepared at a time, a line for the rest. Knows no web server."""

import time
from collections.abc import Callable
from typing import NamedTuple

PRESENT_SECONDS = 20  # a page that waits asks again every few seconds; one that was silent for so long holds up nobody
FORGOTTEN_SECONDS = 120  # and after that it has lost its place
AWAY_SECONDS = 60  # a panel that nobody has looked at for so long is ended, and its place is free
PREPARING_SECONDS = 300  # a panel that is not there by then will not come


class Admission(NamedTuple):
    """kind: "in", "waiting" or "full". before: how many come first. instead: the visitor whose place it was."""

    kind: str
    before: int = 0
    instead: str = ""


class Door:
    """Lets visitors in, in the order in which they came.

    limit: how many at a time. at_once: how many panels are prepared at the same time; more would make all of them late.
    A visitor who comes again has one place, not two.
    """

    def __init__(self, limit: int, at_once: int, clock: Callable[[], float] = time.monotonic):
        self.limit, self.at_once, self.clock = limit, at_once, clock
        self.line: dict[str, float] = {}  # when each was last seen, in the order in which they came
        self.preparing: dict[str, float] = {}  # since when
        self.inside: dict[str, float | None] = {}  # since when nobody looks at the panel; None while somebody does

    def knock(self, visitor: str) -> Admission:
        """Whether this visitor may come in now."""
        now = self.clock()
        self.line = {name: seen for name, seen in self.line.items() if now - seen < FORGOTTEN_SECONDS}
        self.preparing = {name: since for name, since in self.preparing.items() if now - since < PREPARING_SECONDS}
        self.line[visitor] = now
        names = list(self.line)
        ahead = [name for name in names[: names.index(visitor)] if now - self.line[name] < PRESENT_SECONDS]
        if visitor in self.preparing:
            return Admission("waiting", len(ahead))
        others = {name: since for name, since in self.inside.items() if name != visitor}
        gone = [name for name in self.gone() if name != visitor]
        places = self.limit - len(others) + len(gone)
        if places <= len(ahead):
            return Admission("full", len(ahead))
        if len(ahead) >= self.at_once - len(self.preparing):
            return Admission("waiting", len(ahead) + len(self.preparing))
        instead = gone[0] if len(others) >= self.limit else ""
        self.leave(instead)
        del self.line[visitor]
        self.inside[visitor], self.preparing[visitor] = now, now
        return Admission("in", instead=instead)

    def gone(self) -> list[str]:
        """The visitors at whose panels nobody has looked for long; a panel that is being prepared is not meant."""
        away = {name: self.clock() - since for name, since in self.inside.items() if since is not None}
        return [name for name, seconds in away.items() if seconds >= AWAY_SECONDS and name not in self.preparing]

    def opened(self, visitor: str) -> None:
        """This visitor's panel is there; the next can be prepared."""
        self.preparing.pop(visitor, None)
        if self.inside.get(visitor) is not None:  # the browser has to show it yet
            self.inside[visitor] = self.clock()

    def look(self, visitor: str, looking: bool) -> None:
        """Somebody looks at this visitor's panel, or nobody any more."""
        if visitor in self.inside:
            self.inside[visitor] = None if looking else self.clock()

    def leave(self, visitor: str) -> None:
        """This visitor's place is free again."""
        self.inside.pop(visitor, None)
        self.preparing.pop(visitor, None)
