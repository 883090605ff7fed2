import pytest
import torch

from helpers.generation import Stream, generate
from helpers.panels import GenerationPanel


@pytest.fixture
def panel(tiny_llama, tokenizer):
    return GenerationPanel(tiny_llama, tokenizer, "hi", max_new_tokens=8)


def test_run_answers_like_generate(panel, tiny_llama, tokenizer):
    assert panel.run().strip() == generate(tiny_llama, tokenizer, ["hi"], max_new_tokens=8)[0].text
    assert "tokens" in panel.status_text and not panel.generate_button.disabled and panel.stop_button.disabled


def test_pressing_generate_without_an_event_loop_answers_too(panel):
    panel.generate_button.click()
    assert panel.error is None and panel.output.value.startswith("<div")


def test_a_failure_is_shown_kept_and_raised_and_the_panel_goes_on(panel, monkeypatch):
    working = panel.model.generate
    monkeypatch.setattr(panel.model, "generate", lambda **_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError):
        panel.run()
    assert "no room" in panel.status.value and isinstance(panel.error, MemoryError)
    monkeypatch.setattr(panel.model, "generate", working)
    panel.generate_button.click()
    assert panel.error is None and not panel.generate_button.disabled


def test_a_setting_that_is_refused_is_shown(panel):
    panel.tokenizer.chat_template = "{{ nothing.at.all }}"
    panel.generate_button.click()
    assert "It failed" in panel.status_text and not panel.generate_button.disabled


def test_stop_ends_the_answer(panel, monkeypatch):
    judge, seen = Stream.stopping, []

    def press_stop_at_the_fifth(stream, input_ids, scores, **_):
        seen.append(1)
        if len(seen) == 5:
            panel.stop_button.click()
        return judge(stream, input_ids, scores)

    monkeypatch.setattr(Stream, "stopping", press_stop_at_the_fifth)
    panel.max_new_tokens.box.value, panel.temperature.box.value, panel.seed.value = 300, 1.0, 3
    panel.generate_button.click()
    assert panel.stream.tokens <= 5 and "you stopped it" in panel.status_text


def test_a_second_press_while_one_answer_is_written_does_nothing(panel):
    panel.lock.acquire()
    panel.start()
    assert panel.stream is None
    panel.lock.release()


def test_markup_in_an_answer_is_text(panel):
    panel.answer = "<img src=x onerror=alert(1)>"
    panel.write("<b>status</b>")
    assert "<img" not in panel.output.value and "<b>" not in panel.status.value


def test_slider_and_box_show_the_same_number(panel):
    panel.temperature.slider.value = 1.25
    assert panel.temperature.box.value == 1.25 == panel.temperature.value
    panel.top_k.box.value = 40
    assert panel.top_k.slider.value == 40


def test_every_control_has_a_label(panel):
    assert panel.prompt.description and panel.which.description and panel.seed.description
    assert [n.box.description for n in (panel.temperature, panel.top_k, panel.top_p, panel.max_new_tokens)] == [
        "temperature",
        "top_k",
        "top_p",
        "max_new_tokens",
    ]


def test_base_and_tuned_are_offered_for_a_model_with_an_adapter(tiny_llama, tokenizer):
    from peft import LoraConfig, get_peft_model

    before = GenerationPanel(tiny_llama, tokenizer, "hi", max_new_tokens=6).run()
    tuned = get_peft_model(tiny_llama, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5, generator=torch.Generator().manual_seed(0))
    panel = GenerationPanel(tuned, tokenizer, "hi", max_new_tokens=6)
    assert panel.run() != before
    panel.which.value = "base"
    assert panel.run() == before


def test_on_colab_it_runs_on_the_main_thread(tiny_llama, tokenizer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "google.colab", object())
    panel = GenerationPanel(tiny_llama, tokenizer, "hi", max_new_tokens=4)
    assert panel.on_main_thread
    panel.generate_button.click()
    assert panel.error is None and "tokens" in panel.status_text
