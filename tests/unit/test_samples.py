from types import SimpleNamespace

import pytest
import torch

from helpers.generate.generation import Answer, generate
from helpers.train import samples
from helpers.train.samples import Samples

ROW = {
    "messages": [{"role": "user", "content": "What does it cost?"}, {"role": "assistant", "content": "It is 4.20."}],
    "match": [["4.20"]],
    "forbid": ["free"],
}
ONE, MANY = SimpleNamespace(world_size=1), SimpleNamespace(world_size=2)


class Log:
    def __init__(self):
        self.rows = []

    def mark(self, step, event, **more):
        self.rows.append({"step": step, "event": event, **more})


def state(step):
    return SimpleNamespace(global_step=step, max_steps=16)


@pytest.fixture
def saying(monkeypatch):
    """Makes the model say a text."""

    def say(text):
        monkeypatch.setattr(samples, "generate", lambda *_, **__: [Answer(text, 1, True)])

    return say


def test_the_answer_of_the_moment_is_kept_and_the_model_left_as_it_was(tiny_llama, tokenizer):
    log = Log()
    asked = Samples(log, "Is it open?", max_new_tokens=4)
    expected = generate(tiny_llama.eval(), tokenizer, ["Is it open?"], max_new_tokens=4)[0].text
    before = torch.random.get_rng_state()
    asked.on_evaluate(ONE, state(0), None, model=tiny_llama.train(), processing_class=tokenizer)
    assert log.rows == [
        {"step": 0, "event": "sample", "question": "Is it open?", "text": expected, "right": None, "expected": ""}
    ]
    assert tiny_llama.training and torch.equal(torch.random.get_rng_state(), before)


def test_the_model_answers_without_dropout(tiny_llama, tokenizer, monkeypatch):
    seen = []
    monkeypatch.setattr(
        samples, "generate", lambda model, *_, **__: seen.append(model.training) or [Answer("", 0, True)]
    )
    Samples(Log(), "?").ask(tiny_llama.train(), tokenizer, 1)
    assert seen == [False] and tiny_llama.training


@pytest.mark.parametrize(("text", "right"), [("It is 4.20.", True), ("It is 14.20.", False), ("4.20 or free", False)])
def test_an_answer_is_right_by_the_facts_of_its_row(saying, text, right):
    saying(text)
    asked = Samples(Log(), ROW)
    asked.ask(torch.nn.Linear(1, 1), None, 1)
    (row,) = asked.history.rows
    assert (row["right"], row["expected"], row["question"]) == (right, "It is 4.20.", "What does it cost?")
    assert asked.conversation == ROW["messages"][:1], "the right answer is not in the prompt"


def test_it_is_asked_at_the_start_at_each_evaluation_and_at_the_end_once(saying):
    saying("x")
    asked, model = Samples(Log(), "?"), torch.nn.Linear(1, 1)
    asked.on_train_begin(None, state(0), None)
    for step in (0, 5, 10, 15):
        asked.on_evaluate(ONE, state(step), None, model=model)
    asked.on_train_end(ONE, state(16), None, model=model)
    asked.on_train_end(ONE, state(16), None, model=model)
    assert [row["step"] for row in asked.history.rows] == [0, 5, 10, 15, 16]


def test_after_a_stop_nobody_is_asked_and_a_resumed_run_has_its_answers(saying):
    saying("x")
    asked = Samples(Log(), "?")
    asked.on_train_end(ONE, state(7), None, model=torch.nn.Linear(1, 1))
    asked.on_train_begin(None, state(8), None)
    asked.on_evaluate(ONE, state(8), None, model=torch.nn.Linear(1, 1))
    assert asked.history.rows == []


def test_with_several_processes_nobody_is_asked():
    asked = Samples(Log(), "?")
    asked.on_evaluate(MANY, state(8), None, model=None)
    assert asked.history.rows == []


def test_a_question_that_the_template_cannot_write_ends_no_training(tiny_llama, tokenizer, capsys):
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    asked = Samples(Log(), "?")
    asked.ask(tiny_llama.train(), tokenizer, 1)
    assert asked.history.rows == [] and tiny_llama.training and "no system role" in capsys.readouterr().out
