"""Chat templates of strangers: bounded in work, memory and text, and otherwise what they are in Jinja's own sandbox."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from families import FAMILIES, FREE, THINKS, build
from jinja2 import TemplateAssertionError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from trl import chat_template_utils

from helpers.data import bounded
from helpers.data.bounded import BoundedEnvironment, TemplateLimit
from helpers.models.load import load_tokenizer
from helpers.models.source import ModelError, check_sizes, load_config

FOR = "{% for a in range(99999) %}"
STATE = "{% set ns = namespace(x='ab', y=[1]) %}"
ATTACKS = {
    "nested loops": f"{FOR}{FOR}{{% endfor %}}{{% endfor %}}",
    "recursion": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "doubling": f"{STATE}{FOR}{{% set ns.x = ns.x + ns.x %}}{{% endfor %}}",
    "joining": f"{STATE}{FOR}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}",
    "replacing": f"{STATE}{FOR}{{% set ns.x = ns.x.replace('a', ns.x) %}}{{% endfor %}}",
    "lists of lists": f"{STATE}{FOR}{{% set ns.y = [ns.y, ns.y] %}}{{% endfor %}}{{{{ ns.y }}}}",
    "dicts of dicts": f"{STATE}{FOR}{{% set ns.y = {{'a': ns.y, 'b': ns.y}} %}}{{% endfor %}}{{{{ ns.y | tojson }}}}",
    "output": f"{FOR}{{{{ 'x' * 100000 }}}}{{% endfor %}}",
    "kept output": f"{{% set z %}}{FOR}{'y' * 50000}{{% endfor %}}{{% endset %}}",
    "product": "{{ 'a' * 10000000000 }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "width": "{{ '%9999999999d' % 1 }}{{ '{:9999999999}'.format(1) }}",
    "filling": "{{ 'a'.center(10000000000) }}",
    "filter": "{{ 'a' | indent(10000000000) | center(10000000000) }}",
    "a text of shared parts": "{{ (['x' * 16000000] * 9999) | string }}",
    "JSON of shared parts": "{{ (['x' * 16000000] * 9999) | tojson }}",
    "dictionary of shared parts": "{% set x = 'x' * 16000000 %}{{ {'a': x, 'b': x} | string }}",
    "dictionary of shared names": "{{ ([{'x' * 16000000: 1}] * 9999) | string }}",
    "size": "a" * (2**20 + 1),
}


def environment():
    return BoundedEnvironment(trim_blocks=True, lstrip_blocks=True)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_template_without_an_end_is_ended(attack, monkeypatch):
    monkeypatch.setattr(bounded, "STEPS", 50_000)
    with pytest.raises(TemplateLimit, match="the chat template"):
        environment().from_string(attack).render()


@pytest.mark.parametrize("name", bounded.SLOW)
def test_filters_that_take_minutes_for_a_long_text_are_not_there(name):
    with pytest.raises(TemplateAssertionError, match=f"No filter named '{name}'"):
        environment().from_string(f"{{{{ ('<' * 4000000) | {name} }}}}")


def test_a_template_that_went_too_far_is_not_tried_again(monkeypatch):
    monkeypatch.setattr(bounded, "STEPS", 1000)
    template = environment().from_string("{% for a in range(n) %}{% endfor %}")
    assert template.render(n=10) == ""
    with pytest.raises(TemplateLimit):
        template.render(n=5000)
    with pytest.raises(TemplateLimit):
        template.render(n=10)


USUAL = (
    "{% set ns = namespace(found=false) %}{% for m in messages %}{{ '<' ~ m.role ~ '>' + m.content | trim }}"
    "{% if loop.last %}{{ loop.length }}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }}"
    "{{ {'a': [1, 2]} | tojson }}{{ messages[0]['content'].replace('h', 'H').upper() }}{{ none }}{{ x is defined }}"
    "{{ ['a', 'b'] | join(', ') }}{{ [1] + [2] }}{{ '%s-%d' % ('a', 3) }}{{ '  ' * 2 }}{{ 7 % 3 }}{{ 'a' | upper }}"
)


@pytest.mark.parametrize("text", [USUAL, FREE, THINKS])
def test_a_usual_template_writes_what_it_writes_in_jinjas_own_sandbox(text):
    said = [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "Hello", "reasoning_content": "x"}]
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    expected = plain.from_string(text).render(messages=said, add_generation_prompt=True)
    assert environment().from_string(text).render(messages=said, add_generation_prompt=True) == expected


def test_published_templates_write_what_they_write_in_jinjas_own_sandbox():
    """Those that TRL knows: with variables that nobody set, among other things."""
    folder = Path(chat_template_utils.__file__).parent / "chat_templates"
    mark = re.compile(r"{%-? *(end)?generation *-?%}")
    texts = [mark.sub("", file.read_text("utf-8")) for file in folder.glob("*[!g].jinja")]
    sides = [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "Hello", "reasoning_content": "x"}]

    def written(kind, text):
        made = kind(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        made.globals |= {"raise_exception": lambda said: said, "strftime_now": lambda form: form}
        given = {"messages": (sides * 2)[:3], "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
        try:
            return made.from_string(text).render(given)
        except UndefinedError:  # of vision, which asks texts for their parts
            return None

    ours = [written(BoundedEnvironment, text) for text in texts]
    assert len([text for text in ours if text]) > 20
    assert ours == [written(ImmutableSandboxedEnvironment, text) for text in texts]


@pytest.fixture
def model(smoke, tmp_path):
    """(folder, settings) of a tiny Qwen2 as a reader's own model."""
    folder = build(next(one for one in FAMILIES if one.name == "Qwen2"), tmp_path / "model")
    return folder, replace(smoke, model=str(folder), template="auto")


def test_a_model_with_such_a_template_is_refused_in_a_sentence(model, monkeypatch):
    monkeypatch.setattr(bounded, "STEPS", 50_000)
    folder, settings = model
    (folder / "chat_template.jinja").write_text(ATTACKS["nested loops"])
    with pytest.raises(ModelError, match=r"does not come to an end.*TEMPLATE = 'guanaco'"):
        load_tokenizer(settings)
    (folder / "chat_template.jinja").write_text("{{ " + "(" * 5000 + ")" * 5000 + " }}")
    with pytest.raises(ModelError, match="nested too deeply"):
        load_tokenizer(settings)
    assert load_tokenizer(replace(settings, template="guanaco"))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json", "chat_template.jinja"])
def test_a_file_of_gigabytes_is_refused_before_it_is_read(model, name):
    folder, settings = model
    with (folder / name).open("wb") as file:
        file.truncate(2**31)  # takes no room
    with pytest.raises(ModelError, match=f"{name} has 2,048 MiB"):
        load_tokenizer(settings)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "chat_template.jinja"])
@pytest.mark.parametrize("what", ["a pipe", "a device behind a link"])
def test_what_would_be_read_without_an_end_is_refused_before_it_is_read(model, name, what):
    folder, settings = model
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name) if what == "a pipe" else (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ModelError, match=rf"{name} is no file|no config\.json there"):
        load_config(settings)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("content", ["[" * 200_000, '{"a": 1', "[]", "\0\0"])
def test_a_file_that_is_none_ends_in_a_sentence(model, name, content):
    folder, settings = model
    (folder / name).write_text(content)
    try:
        load_config(settings)
        load_tokenizer(settings)
    except ModelError as error:
        assert str(error).startswith(str(folder)) or "tokenizer" in str(error)


@pytest.mark.parametrize("name", ["num_hidden_layers", "vocab_size", "hidden_size"])
def test_a_configuration_that_nobody_could_build_is_refused(model, name):
    folder, settings = model
    content = json.loads((folder / "config.json").read_text()) | {name: 10**12}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=name):
        check_sizes(settings.model, load_config(settings))


def test_transformers_still_compiles_templates_in_a_sandbox_of_this_name(tokenizer, monkeypatch):
    """Drift: when this fails, chat templates are bounded by nothing again."""
    monkeypatch.setattr(bounded, "STEPS", 1000)
    bounded.install_bounded_compiler()
    with pytest.raises(TemplateLimit):
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "hi"}], chat_template=ATTACKS["nested loops"], tokenize=False
        )
