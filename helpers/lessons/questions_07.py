"""Notebook 07's questions before its figures. Right answers come from the study and from the reader's own sweep."""

from helpers.lessons.question import Question
from helpers.machine.language import listed, named, phrase, tr

# Names that notebook 07 gives its measurements: shown in the reader's language.
NAMES = (phrase("learning rate"), phrase("rank"), phrase("layers"))


def by_interval(gap: tuple[float, float]) -> int:
    """1, 2 or 3: above zero, within noise, below it, for the borders of an interval."""
    return 1 if gap[0] > 0 else 3 if gap[1] < 0 else 2


SETTINGS: dict[str, Question] = {
    "07.most": Question(
        "Which of these changes the share of right facts most?",
        (
            ("the learning rate", "It scales every step: in these steps, 2e-5 learned nothing."),
            ("the rank", "A larger r gives the update more room, as far as the steps can fill it."),
            ("which layers have an adapter", "An update that has no place in the MLP has to be made elsewhere."),
        ),
        "how far the highest and the lowest bar of each picture lie apart",
        lambda value: 1 + list(value).index(max(value, key=value.get)),
        lambda value: listed(f"{named(name)} {span:.0%}" for name, span in value.items()),
    ),
    "07.rank": Question(
        "Is r=64 better than r=4, at the same learning rate?",
        (
            ("worse", "More parameters may learn by heart what does not carry over."),
            ("within noise, the same", "So it may be where a style is learned; here facts are."),
            ("better", "Facts that are learned by heart need room."),
        ),
        "the first sentence below the picture",
        lambda value: 4 - by_interval(value),
        lambda value: tr("the difference is {low:+.0%} to {high:+.0%}", low=value[0], high=value[1]),
    ),
    "07.full": Question(
        "Which forgets more ordinary text, each at the learning rate at which it learns most?",
        (
            ("full fine-tuning", "It may change every weight, if it is given the rate for it."),
            ("within noise, neither", "Three seeds of each lie too close together to tell them apart."),
            ("LoRA", "Few directions, but large steps in each of them."),
        ),
        "the second picture, and the sentence on it below: a higher NLL is worse",
        by_interval,
        lambda value: tr("the difference is {low:+.2f} to {high:+.2f}", low=value[0], high=value[1]),
    ),
    "07.sweep": Question(
        "Which learning rate will the winner have?",
        (
            ("the smallest", "It learns least in a step, and the steps of a sweep are few."),
            ("one between", "Large enough for few steps, small enough to go down evenly."),
            ("the largest", "The shorter the training, the larger the rate that it can use."),
        ),
        "the first row of the sweep's table",
        lambda value: 1 if value[0] == min(value[1]) else 3 if value[0] == max(value[1]) else 2,
        lambda value: tr("{rate:g}, of {rates}", rate=value[0], rates=listed(f"{rate:g}" for rate in value[1])),
    ),
}
