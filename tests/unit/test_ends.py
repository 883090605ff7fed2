"""Texts begin as the tokenizer begins them, once; answers end at any of the end tokens."""

from dataclasses import replace

import pytest
import torch
from families import BEGIN, FAMILIES, FREE, build, build_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from helpers.behaviour import caches, found_out, reads_in_parts, takes_padding
from helpers.data.chat import begin_ids, original_template, prompt_text, set_template
from helpers.data.ends import end_ids, trained_end, turn_end
from helpers.data.labels import encode
from helpers.generate.engine import Engine
from helpers.generate.events import Request
from helpers.generate.generation import Stream, generate
from helpers.generate.kv_cache import reads_in_room
from helpers.generate.sampling import Sampling
from helpers.models.load import generation_config, load_model
from helpers.run import Run
from helpers.train.build import build_trainer
from helpers.train.preflight import proofs

BY_NAME = {family.name: family for family in FAMILIES}
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("template", ["auto", "guanaco"])
def test_rows_and_prompts_begin_as_the_tokenizer_begins_a_text(family, template):
    tokenizer = build_tokenizer(family)
    set_template(tokenizer, template)
    row, _ = encode(tokenizer, TALK)
    prompt = tokenizer(prompt_text(tokenizer, TALK[:1]), add_special_tokens=False)["input_ids"]
    expected = [2] if family.begin else []
    assert begin_ids(tokenizer) == expected == [token for token in row if token == 2]
    assert row[: len(expected)] == prompt[: len(expected)] == expected
    assert row[: len(prompt)] == prompt


def test_a_begin_of_several_tokens_is_written_as_they_are():
    from tokenizers import processors

    tokenizer = build_tokenizer(BY_NAME["Gemma 3"])
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} <user> $A", special_tokens=[(BEGIN, 2), ("<user>", 3)]
    )
    set_template(tokenizer, "guanaco")
    assert encode(tokenizer, TALK)[0][:2] == begin_ids(tokenizer) == [2, 3]


def test_several_templates_by_name_are_refused_in_a_sentence():
    tokenizer = build_tokenizer(BY_NAME["Qwen2"])
    tokenizer.chat_template = {"default": FREE, "tools": FREE}
    with pytest.raises(ValueError, match=r"several \(default, tools\)"):
        set_template(tokenizer, "model")
    assert original_template(tokenizer) == {"default": FREE, "tools": FREE}


def test_the_end_tokens_are_those_of_tokenizer_template_and_generation_config(tmp_path):
    folder = build(BY_NAME["Gemma 3"], tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    set_template(tokenizer, "model")
    assert turn_end(tokenizer) == 5 and end_ids(tokenizer) == [1, 5]
    model.generation_config.eos_token_id = [1, 4]
    assert end_ids(tokenizer, model) == [1, 5, 4]
    model.generation_config.eos_token_id = None
    assert end_ids(tokenizer, model) == [1, 5]
    set_template(tokenizer, "guanaco")
    assert turn_end(tokenizer) == 1 and end_ids(tokenizer, model) == [1]
    line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert trained_end(tokenizer, model, [60, 1, *line_break]) == 1
    assert trained_end(tokenizer, model, [60, *line_break]) is None and trained_end(tokenizer, model, []) is None


def ending_model(tmp_path, name="Gemma 3"):
    """(model, tokenizer) that says the template's end of a turn as its fourth token, whatever it is asked."""
    folder = build(BY_NAME[name], tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    set_template(tokenizer, "model")
    said = iter(())

    def head(module, arguments, logits):
        forced = torch.full_like(logits, -50.0)
        forced[..., -1, next(said, 70)] = 50.0
        return forced

    model.get_output_embeddings().register_forward_hook(head)
    for question in (caches, takes_padding, reads_in_parts, reads_in_room):  # they call the model, too
        found_out(model, question)

    def restart():
        nonlocal said
        said = iter([70, 71, 72, 5, 73, 74])

    return model, tokenizer, restart


def test_all_ways_to_an_answer_stop_at_the_templates_end(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.generate.decode.reads_in_parts", lambda model: True)  # it would use up the script
    model, tokenizer, restart = ending_model(tmp_path)
    restart()
    (answer,) = generate(model, tokenizer, ["hi"], max_new_tokens=6)
    assert (answer.tokens, answer.ended) == (3, True)
    restart()
    stream = Stream(model, tokenizer, "hi", max_new_tokens=6)
    assert "".join(stream).strip() == answer.text and stream.ended and stream.end == [5]
    assert "eos_token_id=[1, 5]" in stream.as_code()
    restart()
    request = Request("hi", sampling=Sampling(max_new_tokens=6), models=("base",))
    events = list(Engine(model, tokenizer).ask(request))
    assert events[-1].value["reason"] == "the model ended its answer"
    restart()
    prompt = tokenizer(prompt_text(tokenizer, TALK[:1]), add_special_tokens=False, return_tensors="pt")
    library = model.generate(**prompt, max_new_tokens=6)[0, prompt["input_ids"].shape[1] :].tolist()
    assert library == [70, 71, 72, 5]


def test_an_end_token_that_is_passed_still_replaces_those_of_the_generation_config(tmp_path):
    """Drift: when this fails, `generate` adds the two, and end_ids needs no generation config."""
    model, _, restart = ending_model(tmp_path)
    restart()
    ids = torch.tensor([[60]])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=1, max_new_tokens=6)
    assert len(made[0]) == 7


def test_a_generation_config_that_contradicts_itself_is_still_refused(tmp_path, tiny_llama, tokenizer):
    """Drift: when this fails, generation_config may keep what it is given."""
    tiny_llama.generation_config = GenerationConfig(temperature=0.5, do_sample=False)
    with pytest.raises(ValueError, match="temperature"):
        tiny_llama.generation_config.save_pretrained(tmp_path)
    kept = generation_config(tokenizer, tiny_llama)
    kept.save_pretrained(tmp_path)
    assert kept.eos_token_id == [1] and GenerationConfig.from_pretrained(tmp_path).eos_token_id == [1]


@pytest.mark.parametrize("fault", ["twice", "none", "no end"])
def test_the_preflight_sees_a_wrong_begin_or_end(smoke, rows, tmp_path, fault):
    settings = replace(smoke, model=str(build(BY_NAME["Cohere"], tmp_path / "m")), template="auto")
    loaded = load_model(settings)
    template = loaded.tokenizer.chat_template
    changed = {
        "twice": "{{ bos_token }}" + template,
        "none": template.replace("{{ bos_token }}", ""),
        "no end": template.replace("<turn>", ""),
    }
    loaded.tokenizer.chat_template = changed[fault]
    trainer = build_trainer(Run(settings, tmp_path / "run"), loaded.model, loaded.tokenizer, rows)
    assert "begin and end" in {check.name for check in proofs(trainer) if not check.ok}
