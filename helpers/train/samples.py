"""One answer of the model every so often while it trains. Knows nothing of charts."""

import time

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback

from helpers.generate.generation import generate
from helpers.watch.history import History


class Samples(TrainerCallback):
    """Asks the model one question a few times in a run, greedily, and puts the answer into the history.

    history: a History of the same trainer. question: held out from training. times: how often in a run, at most. An
    answer that would take the asking above `share` of the training's time waits for a later step.
    Greedy decoding draws no random numbers, so the training is the same with it as without.
    """

    def __init__(
        self, history: History, question: str, *, times: int = 8, share: float = 0.02, max_new_tokens: int = 32
    ):
        self.history, self.question, self.times, self.share = history, question, times, share
        self.max_new_tokens, self.spent, self.longest, self.asked_at = max_new_tokens, 0.0, 0.0, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.spent, self.longest, self.asked_at = 0.0, 0.0, state.global_step
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, model=None, processing_class=None, **kwargs):
        every = max(1, state.max_steps // self.times)
        elapsed = time.perf_counter() - self.start
        due = state.global_step - self.asked_at >= every and args.world_size == 1
        if due and self.spent + self.longest <= self.share * elapsed:
            self.ask(model, processing_class, state.global_step)

    def ask(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, step: int) -> None:
        """One answer, kept as a row with event "sample"; the model is left as it was."""
        start, was_training = time.perf_counter(), model.training
        model.eval()
        try:
            with torch.random.fork_rng():
                (answer,) = generate(model, tokenizer, [self.question], max_new_tokens=self.max_new_tokens)
        finally:
            model.train(was_training)
        self.history.mark(step, "sample", question=self.question, text=answer.text)
        taken = time.perf_counter() - start
        self.spent, self.longest, self.asked_at = self.spent + taken, max(self.longest, taken), step
