"""Which rows are held out: a tenth, chosen by content. Knows nothing of files or tokens."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from helpers.machine.language import phrase

if TYPE_CHECKING:
    from datasets import Dataset

HELD_OUT = 0.1
ENOUGH = 10  # rows of a group from which on it can give its own share


class Split(NamedTuple):
    """train and test; note: how they were told apart, in a sentence."""

    train: Dataset
    test: Dataset
    note: str


def split(dataset: Dataset, share: float = HELD_OUT) -> Split:
    """The rows of a load_chat dataset in two: what its source holds out, or else about `share` of the rows.

    What is held out depends on the content alone, not on the order. Rows that ask the same stay on one side, unless
    nearly all ask the same. Each group gives its share where every group has rows enough.
    """
    own = dataset["held_out"]
    if any(own) and not all(own):
        sides = [i for i, out in enumerate(own) if not out], [i for i, out in enumerate(own) if out]
        return Split(
            dataset.select(sides[0]), dataset.select(sides[1]), phrase("held out: the part that the source holds out")
        )
    groups, keys, wholes = dataset["group"], dataset["key"], dataset["whole"]
    sizes = Counter(groups)
    by_group = len(sizes) > 1 and min(sizes.values()) >= ENOUGH
    held_out, torn = drawn(groups if by_group else [""] * len(keys), keys, wholes, share)
    if by_group and len(held_out) > 1.25 * share * len(keys):  # the same questions stand in many groups
        by_group = False
        held_out, torn = drawn([""] * len(keys), keys, wholes, share)
    sides = [i for i in range(len(keys)) if i not in held_out], sorted(held_out)
    facts = {"n": len(held_out), "all": len(keys)}
    note = phrase("held out: {n:,} of {all:,} rows, chosen by their content", **facts)
    if by_group:
        note = phrase("{note}, each group's share", note=note)
    if torn:
        note = phrase("{note}; many rows ask the same, so some of these stand on both sides", note=note)
    return Split(dataset.select(sides[0]), dataset.select(sides[1]), note)


def drawn(groups: list[str], keys: list[int], wholes: list[int], share: float) -> tuple[set[int], bool]:
    """(the rows that are held out, whether rows that ask the same were torn apart); each group gives its share."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    wanted = allotted({name: len(rows) for name, rows in members.items()}, share)
    held_out: set[int] = set()
    torn = False
    for name, rows in members.items():
        chosen, apart = chosen_rows(rows, keys, wholes, wanted[name])
        held_out |= chosen
        torn |= apart
    asked = {keys[index] for index in held_out}
    if not torn:  # the same question in another group
        held_out = {index for index, key in enumerate(keys) if key in asked}
    return held_out, torn


def allotted(sizes: dict[str, int], share: float) -> dict[str, int]:
    """How many rows each group gives, so that all together give `share` of all, and at least one of two rows."""
    total = sum(sizes.values())
    target = max(round(share * total), 1 if total > 1 else 0)
    counts = {name: int(share * size) for name, size in sizes.items()}
    by_rest = sorted(sizes, key=lambda name: (counts[name] - share * sizes[name], name))
    for name in by_rest[: target - sum(counts.values())]:
        counts[name] += 1
    return counts


def chosen_rows(rows: list[int], keys: list[int], wholes: list[int], wanted: int) -> tuple[set[int], bool]:
    """(at most `wanted` of these rows, whether rows that ask the same were torn apart), smallest hash first."""
    asking: dict[int, list[int]] = {}
    for index in rows:
        asking.setdefault(keys[index], []).append(index)
    chosen: set[int] = set()
    for key in sorted(asking):
        if len(chosen) + len(asking[key]) <= wanted:
            chosen |= set(asking[key])
    if len(chosen) >= min(wanted - 1, 0.8 * wanted) and chosen:
        return chosen, False
    return set(sorted(rows, key=lambda index: wholes[index])[:wanted]), True
