from types import SimpleNamespace

import torch

from helpers.generate.generation import Answer
from helpers.train import samples
from helpers.train.samples import Samples


class Log:
    def __init__(self):
        self.rows = []

    def mark(self, step, event, **more):
        self.rows.append({"step": step, "event": event, **more})


ONE, MANY = SimpleNamespace(world_size=1), SimpleNamespace(world_size=2)


def state(step):
    return SimpleNamespace(global_step=step, max_steps=16)


def test_the_answer_of_the_moment_is_kept_and_the_model_left_as_it_was(tiny_llama, tokenizer):
    log = Log()
    asked = Samples(log, "Is it open?", times=4, share=1.0, max_new_tokens=4)
    tiny_llama.train()
    asked.on_train_begin(None, state(0), None)
    before = torch.random.get_rng_state()
    for step in range(1, 17):
        asked.start -= 100
        asked.on_step_end(ONE, state(step), None, model=tiny_llama, processing_class=tokenizer)
    assert [row["step"] for row in log.rows] == [4, 8, 12, 16]
    assert log.rows[0]["question"] == "Is it open?" and isinstance(log.rows[0]["text"], str)
    assert tiny_llama.training and torch.equal(torch.random.get_rng_state(), before)


def test_the_model_answers_without_dropout(tiny_llama, tokenizer, monkeypatch):
    seen = []
    monkeypatch.setattr(
        samples, "generate", lambda model, *_, **__: seen.append(model.training) or [Answer("", 0, True)]
    )
    Samples(Log(), "?").ask(tiny_llama.train(), tokenizer, 1)
    assert seen == [False] and tiny_llama.training


def test_it_waits_when_asking_would_take_more_than_its_share(monkeypatch):
    monkeypatch.setattr(samples, "generate", lambda *_, **__: [Answer("x", 1, True)])
    log = Log()
    asked = Samples(log, "?", times=16)
    asked.on_train_begin(None, state(0), None)
    model = torch.nn.Linear(1, 1)
    asked.spent, asked.longest = 1.0, 1.0
    asked.start -= 99
    asked.on_step_end(ONE, state(1), None, model=model)
    assert log.rows == [], "two seconds are more than 2 % of 99"
    asked.start -= 2
    asked.on_step_end(ONE, state(2), None, model=model)
    assert len(log.rows) == 1


def test_with_several_processes_nobody_is_asked():
    asked = Samples(Log(), "?", times=16, share=1.0)
    asked.on_train_begin(None, state(0), None)
    asked.on_step_end(MANY, state(8), None, model=None)
    assert asked.history.rows == []
