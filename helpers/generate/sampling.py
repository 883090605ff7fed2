"""How the next token is chosen: every knob, checked, as `model.generate` takes it. Knows nothing of widgets."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from helpers.machine.language import phrase, tr

if TYPE_CHECKING:
    from transformers import LogitsProcessorList


@dataclass(frozen=True)
class Sampling:
    """The knobs of one answer.

    max_new_tokens: the answer is cut off there. temperature: 0 is greedy, the likeliest token each time. top_k: keep
    the k likeliest, 0 is off. top_p: keep the likeliest up to this share, 1 is off. min_p: keep what has this share of
    the likeliest's probability, 0 is off. repetition_penalty: above 1 makes tokens that were there less likely.
    no_repeat_ngram_size: so many tokens in a row occur once, 0 is off. seed: -1 draws one. stop: texts that end it.
    Sources: top_p arXiv:1904.09751, min_p arXiv:2407.01082, repetition_penalty arXiv:1909.05858.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self):
        """Raises ValueError for a value outside its range, naming it and what can be."""
        ranges = {
            "max_new_tokens": (self.max_new_tokens >= 1, phrase("1 or more")),
            "temperature": (self.temperature >= 0, phrase("0 (greedy) or above")),
            "top_k": (self.top_k >= 0, phrase("0 (off) or above")),
            "top_p": (0 < self.top_p <= 1, phrase("above 0 and up to 1 (off)")),
            "min_p": (0 <= self.min_p < 1, phrase("0 (off) and below 1")),
            "repetition_penalty": (self.repetition_penalty > 0, phrase("above 0; 1 is off")),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, phrase("0 (off) or above")),
            "seed": (-1 <= self.seed < 2**32, phrase("-1 (draw one) or a number below 2**32")),
        }
        for name, (fine, allowed) in ranges.items():
            if not fine:
                value, said = getattr(self, name), tr(allowed)
                raise ValueError(tr("{name}={value}: it must be {allowed}.", name=name, value=value, allowed=said))

    def drawn(self) -> Sampling:
        """The same with a seed of its own where -1 asked for one."""
        return replace(self, seed=random.SystemRandom().randrange(2**31)) if self.seed == -1 else self

    @property
    def is_plain_greedy(self) -> bool:
        """Whether each token is the likeliest by the model's logits alone, up to an end token."""
        return self.temperature == 0 and self.repetition_penalty == 1 and not (self.no_repeat_ngram_size or self.stop)

    def arguments(self) -> dict:
        """The knobs for `model.generate`, all of them but seed and stop.

        Upstream: transformers takes an unset top_k for 50, and fills what is left out from generation_config.json;
        temperature=0 raises. Breaks: the panel and the call below it would draw from other tokens.
        Drift: test_upstream.py::test_generate_still_takes_an_unset_top_k_for_fifty
        """
        knobs = asdict(self)
        for name in ("seed", "stop"):
            del knobs[name]
        if self.temperature == 0:  # greedy: the others would only bring warnings
            return knobs | {"do_sample": False, "temperature": None, "top_k": None, "top_p": None, "min_p": None}
        return knobs | {"do_sample": True}

    def as_code(self) -> str:
        """arguments() as Python source, one argument a line."""
        return "".join(f"    {name}={value!r},\n" for name, value in self.arguments().items())


PRESETS: dict[str, dict[str, float]] = {
    phrase("Greedy"): {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0},
    phrase("Balanced"): {"temperature": 0.7, "top_k": 0, "top_p": 0.9, "min_p": 0.0, "repetition_penalty": 1.0},
    phrase("Creative"): {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.05, "repetition_penalty": 1.0},
    phrase("Neutral"): {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0},
}


def model_preset(model: Any) -> dict:
    """What the model's own generation_config says, with transformers' defaults where it says nothing.

    Source: GenerationConfig in transformers: sampling is off unless do_sample is set; an unset top_k is 50.
    """
    config = model.generation_config
    if not config.do_sample:
        return {**PRESETS["Greedy"], "repetition_penalty": getattr(config, "repetition_penalty", None) or 1.0}
    unset = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    known = {name: getattr(config, name, None) for name in unset}
    return {name: unset[name] if known[name] is None else known[name] for name in unset}


def processors(sampling: Sampling) -> LogitsProcessorList:
    """What `generate` puts between the model's logits and the choice, in its order, as a LogitsProcessorList.

    Source: GenerationMixin._get_logits_processor in transformers/generation/utils.py; a test compares.
    """
    from transformers import LogitsProcessorList
    from transformers.generation import logits_process as logits_process

    chosen = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chosen.append(logits_process.RepetitionPenaltyLogitsProcessor(penalty=sampling.repetition_penalty))
    if sampling.no_repeat_ngram_size:
        chosen.append(logits_process.NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram_size))
    if sampling.temperature > 0:
        if sampling.temperature != 1:
            chosen.append(logits_process.TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            chosen.append(logits_process.TopKLogitsWarper(top_k=sampling.top_k))
        if sampling.top_p < 1:
            chosen.append(logits_process.TopPLogitsWarper(top_p=sampling.top_p))
        if sampling.min_p > 0:
            chosen.append(logits_process.MinPLogitsWarper(min_p=sampling.min_p))
    return chosen
