"""The logic of published chat templates, each in a few lines: what is trained, where it ends, how a prompt begins."""

import json
from dataclasses import replace

import pytest
from datasets import Dataset
from families import FAMILIES, build
from test_rendering import own, spans

from helpers.data.chat import prompt_text, set_template
from helpers.data.conversation import whole_messages
from helpers.data.labels import encode, tokenize
from helpers.data.rendering import rewrites
from helpers.data.rows import RowError
from helpers.models.load import load_model
from helpers.run import Run
from helpers.settings import resolve
from helpers.train.build import build_trainer
from helpers.train.fitting import fitting
from helpers.train.preflight import ends_check, label_checks
from helpers.train.trainer import TrainingError

EOS = "<eos>"
LOOP = "{% for m in messages %}"
# Phi-3 and Phi-4-mini: one end token after each turn, another one after the whole text.
TWO_ENDS = (
    LOOP + "{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{{ '<|assistant|>' if add_generation_prompt else eos_token }}"
)
# Mistral v3: the system text stands in the last question, so that no trained text has it.
MOVED = (
    "{% set system = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
    "{% set rest = messages[1:] if system else messages %}{% for m in rest %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + (system if loop.last else '') + m.content + '[/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
# Qwen3: the last answer has its thinking, earlier ones have none; written otherwise than TRL knows it.
FORGETS = (
    LOOP + "{% if m.role == 'assistant' %}<|assistant|>{% if loop.last %}<think>{{ m.reasoning_content or '' }}</think>"
    "{% endif %}{{ m.content + eos_token }}{% else %}{{ '<|user|>' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% endif %}{% endif %}"
)
# DeepSeek-R1: a prompt begins the thinking, and a row has none.
BEGINS = (
    LOOP + "{{ '<|' + m.role + '|>' + m.content + (eos_token if m.role == 'assistant' else '') }}{% endfor %}"
    "{{ '<|assistant|><think>\n' if add_generation_prompt else '' }}"
)
# SmolLM3: marks of its own, and a mode that the whole text depends on.
MODES = (
    "{{ '/think' if enable_thinking is not defined or enable_thinking else '/no_think' }}"
    + LOOP
    + "{% if m.role == 'assistant' %}<|assistant|>{% generation %}{{ m.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ '<|user|>' + m.content }}{% endif %}{% endfor %}"
    "{{ '<|assistant|>' if add_generation_prompt else '' }}"
)


def talk(*answers, system=""):
    """Turns with these answers; a pair is an answer with its thinking."""
    said = [{"role": "system", "content": system}] if system else []
    for number, answer in enumerate(answers):
        text, *thought = answer if isinstance(answer, tuple) else (answer,)
        more = {"reasoning_content": thought[0]} if thought else {}
        said += [{"role": "user", "content": f"Question {number}?"}, {"role": "assistant", "content": text, **more}]
    return said


def test_a_token_at_the_end_of_the_whole_text_is_no_part_of_earlier_answers():
    tokenizer = own(TWO_ENDS)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    assert spans(tokenizer, talk("One.", "Two.")) == ["One.<|end|>", f"Two.<|end|>{EOS}"]


def test_a_greeting_is_trained_without_what_stands_before_it():
    greeting = [{"role": "assistant", "content": "Welcome."}, *talk("One.")]
    assert spans(own(TWO_ENDS.replace("<|end|>", EOS)), greeting)[0] == f"Welcome.{EOS}"


def test_a_system_text_that_no_trained_text_has_is_told():
    tokenizer = own(MOVED)
    assert spans(tokenizer, talk("One.", "Two.")) == [f" One.{EOS}", f" Two.{EOS}"]
    for turns in (["One."], ["One.", "Two."]):
        with pytest.raises(RowError, match=r"a system message|no text that is the answer alone"):
            encode(tokenizer, talk(*turns, system="Be kind."))


CALL = [{"type": "function", "function": {"name": "look", "arguments": {"place": "Ulm"}}}]
CALLS = json.dumps([{}, {"tool_calls": CALL}])


@pytest.mark.parametrize(
    ("template", "extras", "said"),
    [
        (TWO_ENDS, CALLS, "the template cannot write a tool call (1 row). Choose a model whose own template writes it"),
        ("guanaco", CALLS, "the template cannot write a tool call (1 row). Set TEMPLATE = 'model', the model's own"),
        (TWO_ENDS.replace("m.content", "m.content[:20]"), "", "no text that is the answer alone (1 row). Set TEMPLATE"),
    ],
)
def test_why_no_row_can_be_trained_on_is_a_sentence_that_says_what_to_do(template, extras, said):
    tokenizer = own(TWO_ENDS if template == "guanaco" else template)
    if template == "guanaco":
        set_template(tokenizer, template)
    row = {"messages": talk("A longer answer than the template takes."), **({"extras": extras} if extras else {})}
    with pytest.raises(TrainingError) as raised:
        fitting(resolve("smoke"), tokenizer, Dataset.from_list([row]), None)
    assert said in str(raised.value) and str(raised.value).startswith(
        "the first row cannot be trained on: the template"
    )


@pytest.mark.parametrize("thinking", [True, False])
def test_a_template_that_rewrites_earlier_answers_gets_a_row_for_each(thinking):
    """Each is then what the model reads when it answers: a prompt of its own template, and the answer."""
    tokenizer = own(FORGETS)
    tokenizer.template_options = {"enable_thinking": thinking}
    assert rewrites(tokenizer) and not rewrites(own(TWO_ENDS.replace("<|end|>", EOS)))
    conversation = talk(("One.", "first"), ("Two.", "second"), ("Three.", "third"))
    row = {"messages": [{k: m[k] for k in ("role", "content")} for m in conversation]}
    row["extras"] = '[{}, {"reasoning_content": "first"}, {}, {"reasoning_content": "second"}, {}, {}]'
    fitted = tokenize(tokenizer, Dataset.from_list([row]), 500)
    assert len(fitted.rows) == 3 and not fitted.dropped and not fitted.refused
    for made, thought in zip(fitted.rows, ("first", "second", ""), strict=True):
        messages = whole_messages(made)
        text = tokenizer.decode(made["input_ids"])
        trained = tokenizer.decode([label for label in made["labels"] if label != -100])
        assert text == prompt_text(tokenizer, messages[:-1]) + trained
        before = f"<think>{thought}</think>" if thinking else ""
        assert trained == f"{before}{messages[-1]['content']}{EOS}"
    assert len(tokenize(tokenizer, Dataset.from_list([{"messages": talk("One.")}]), 500).rows) == 1


def test_marks_of_a_template_with_modes_are_read_in_the_mode_that_prompts_have():
    tokenizer = own(MODES)
    tokenizer.template_options = {"enable_thinking": False}
    ids, _ = encode(tokenizer, talk("One."))
    assert tokenizer.decode(ids).startswith(prompt_text(tokenizer, talk("One.")[:1]))


@pytest.mark.parametrize(("template", "right"), [(FORGETS, True), (BEGINS, False), (MODES, True)])
def test_the_preflight_asks_whether_prompts_begin_as_rows_do(template, right, smoke, tmp_path):
    qwen = next(family for family in FAMILIES if family.name == "Qwen2")
    folder = build(qwen._replace(template=template.replace("eos_token", "'<end>'")), tmp_path / "model")
    settings = replace(smoke, model=str(folder), template="auto")
    loaded = load_model(settings)
    rows = Dataset.from_list([{"messages": talk("One.", "Two.")}] * 2)
    trainer = build_trainer(Run(settings, tmp_path / "run"), loaded.model, loaded.tokenizer, rows)
    check = ends_check(trainer)
    assert check.ok is right and all(check.ok for check in label_checks(trainer))
    assert right or ("<think>" in check.actual and "prompts as rows begin" in check.needed)
