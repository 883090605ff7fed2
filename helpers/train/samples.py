"""One answer of the model every so often while it trains. Knows nothing of charts."""

import time
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase, TrainerCallback

from helpers.data.conversation import last_question
from helpers.data.facts import has_facts
from helpers.generate.generation import generate
from helpers.machine.language import tr
from helpers.watch.history import History


class Samples(TrainerCallback):
    """Asks the model one question before the training, at each evaluation and at the end, greedily.

    The answers go into the history. history: of the same trainer. question: held out from training; as text, or as a
    row with `messages`: its last answer is then shown as the right one, and with `match` each answer is marked right or
    wrong. Of several processes none is asked. Greedy decoding draws no random numbers, so the training is the same with
    it as without.
    """

    def __init__(self, history: History, question: str | dict, *, max_new_tokens: int = 32):
        self.history, self.max_new_tokens, self.asked_at = history, max_new_tokens, -1
        self.row = {"messages": [{"role": "user", "content": question}]} if isinstance(question, str) else question
        self.conversation, self.expected = list(self.row["messages"]), ""
        if self.conversation[-1]["role"] == "assistant":
            self.expected = str(self.conversation.pop()["content"] or "")
        self.spent = 0.0  # seconds of asking

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.asked_at = state.global_step if state.global_step else -1  # a resumed run has its answers so far

    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **kwargs: Any
    ) -> None:
        if args.world_size == 1 and state.global_step > self.asked_at:
            self.ask(model, processing_class, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:  # who stops a run does not want to wait
            self.on_evaluate(args, state, control, **kwargs)

    def ask(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, step: int) -> None:
        """One answer, kept as a row with event "sample"; the model is left as it was."""
        start, was_training = time.perf_counter(), model.training
        model.eval()
        try:
            with torch.random.fork_rng():
                (answer,) = generate(model, tokenizer, [self.conversation], max_new_tokens=self.max_new_tokens)
        except TemplateError as error:  # the training goes on without
            print(tr("the template cannot write the question that is asked while it trains ({error})", error=error))
            return
        finally:
            model.train(was_training)
            self.spent, self.asked_at = self.spent + time.perf_counter() - start, step
        asked = last_question(self.row["messages"])
        right = has_facts(answer.text, self.row)
        self.history.mark(step, "sample", question=asked, text=answer.text, right=right, expected=self.expected)
