"""What a panel asks of a model, and what comes back while it answers. Plain values, so that they travel as JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from helpers.generate.sampling import Sampling
from helpers.machine.language import tr


class PromptError(ValueError):
    """The model cannot read this prompt; the message says how much of it is too much, and what to do."""


class Hits(NamedTuple):
    """What a search brought: passages as (text, where it stands), and the question as the model is to read it."""

    passages: list[tuple[str, str]]
    prompt: str


class Turn(NamedTuple):
    """A question that was asked before, with its answers by model."""

    question: str
    answers: dict[str, str]


@dataclass(frozen=True)
class Request:
    """A question to one model or both. models: of "base", "tuned". begun: token ids of an answer to go on from.

    earlier: what is read before it, the oldest first. search: the engine's sheet is searched first, and what was found
    is put above the question.
    """

    prompt: str
    sampling: Sampling
    models: tuple[str, ...] = ("tuned",)
    system: str = ""
    begun: tuple[int, ...] = ()
    earlier: tuple[Turn, ...] = ()
    search: bool = False

    def messages(self, which: str) -> list[dict[str, str]]:
        """What a model reads: each has its own earlier answers; where it was not asked, the other's."""
        read = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.earlier:
            answer = turn.answers.get(which) or next(iter(turn.answers.values()), "")
            read += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": answer}]
        return [*read, {"role": "user", "content": self.prompt}]

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """The request that to_json wrote. Raises ValueError, KeyError or TypeError for anything else."""
        given = json.loads(text)
        knobs = {**given.pop("sampling")}
        sampling = Sampling(**{**knobs, "stop": tuple(knobs["stop"])})
        models, begun = tuple(given.pop("models")), tuple(map(int, given.pop("begun")))
        earlier = tuple(Turn(str(question), dict(answers)) for question, answers in given.pop("earlier", ()))
        if not isinstance(given.get("search", False), bool):
            raise ValueError("search must be true or false")
        if not models or not set(models) <= {"base", "tuned"}:
            raise ValueError(f"models must be of base and tuned, not {models}")
        return cls(sampling=sampling, models=models, begun=begun, earlier=earlier, **given)


class Event(NamedTuple):
    """Something that happened. kind and value:

    found: the passages of Hits. waiting: how many are before you. begin: None. reading: (tokens read, tokens of the
    prompt). piece: text that follows. done: Done as a dict. parted: Parting as a dict, or None. failed: words; only
    from a model of another process. model: whose it is.
    """

    kind: str
    model: str = ""
    value: Any = None


class Done(NamedTuple):
    """The end of one answer. tokens: made, the end token not counted. code: the plain call that repeats it.

    read: tokens of the prompt, earlier turns included. context: tokens that the model can read, 0 where it says none.
    left_out: the oldest turns, so many, had no room.
    """

    tokens: int
    seconds: float
    reason: str
    seed: int | None
    code: str
    read: int = 0
    context: int = 0
    left_out: int = 0


class Parting(NamedTuple):
    """The first token where two answers differ. shared: the text before it; tokens as text, chances before sampling.

    base_own: the chance that the base gives to its own token, base_other: to the tuned model's; tuned_* likewise.
    """

    position: int
    shared: str
    base: str
    tuned: str
    base_own: float
    base_other: float
    tuned_own: float
    tuned_other: float

    def sentence(self) -> str:
        """What it shows, in words."""
        return tr(
            "They part at token {place}. Base writes {base!r}: it gives it {base_own:.1%}, tuned {tuned_other:.1%}. "
            "Tuned writes {tuned!r}: it gives it {tuned_own:.1%}, base {base_other:.1%}.",
            place=self.position + 1,
            **self._asdict(),
        )


class NextToken(NamedTuple):
    """One token that may come next. before, after: its probability without the samplers, and with them."""

    token: int
    text: str
    before: float
    after: float


class Look(NamedTuple):
    """The likeliest next tokens, none after an end. text: of the answer so far. kept: tokens with a chance."""

    rows: list[NextToken]
    text: str
    kept: int
