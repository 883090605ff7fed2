"""The machine: where files lie, what hardware there is, how much memory work takes, what a run's card may hold.

Knows files, names and numbers; imports no other wing, and loads no model and no data.
"""

from helpers.machine.language import listed, named
from helpers.machine.paths import DATA, PROJECT, headless, write_json
from helpers.machine.quiet import collected
from helpers.machine.tables import Table

__all__ = ["DATA", "PROJECT", "Table", "collected", "headless", "listed", "named", "write_json"]
