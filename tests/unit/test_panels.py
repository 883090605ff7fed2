import pytest
import torch

from helpers.generation import generate
from helpers.hardware import Choice
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
    working = panel.decoder.judge
    monkeypatch.setattr(panel.decoder, "judge", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError):
        panel.run()
    assert "no room" in panel.status.value and isinstance(panel.error, MemoryError)
    monkeypatch.setattr(panel.decoder, "judge", working)
    panel.generate_button.click()
    assert panel.error is None and not panel.generate_button.disabled


def test_a_setting_that_is_refused_is_shown(panel):
    panel.tokenizer.chat_template = "{{ nothing.at.all }}"
    panel.generate_button.click()
    assert "It failed" in panel.status_text and not panel.generate_button.disabled


def test_stop_ends_the_answer(panel, monkeypatch):
    judge, seen = panel.decoder.judge, []

    def press_stop_at_the_fifth(*given):
        seen.append(1)
        if len(seen) == 5:
            panel.stop_button.click()
        return judge(*given)

    panel.decoder.how = Choice(False, "one pass a token")
    monkeypatch.setattr(panel.decoder, "judge", press_stop_at_the_fifth)
    panel.controls.set(max_new_tokens=300, temperature=1.0, seed=3)
    panel.generate_button.click()
    assert panel.stream.tokens <= 5 and "you stopped it" in panel.status_text


def test_an_interrupt_stops_the_answer_and_frees_the_panel(panel, monkeypatch):
    slept = []

    def interrupted(seconds):
        slept.append(seconds)
        if len(slept) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("helpers.panels.time.sleep", interrupted)
    panel.controls.set(max_new_tokens=400, temperature=1.0, seed=3)
    panel.answer_now()
    assert panel.stream.stop_asked.is_set() and not panel.lock.locked() and panel.error is None


def test_a_second_press_while_one_answer_is_written_does_nothing(panel):
    panel.lock.acquire()
    panel.start()
    assert panel.stream is None
    panel.lock.release()


def test_markup_in_an_answer_is_text(panel):
    panel.answer = "<img src=x onerror=alert(1)>"
    panel.write("<b>status</b>")
    assert "<img" not in panel.output.value and "<b>" not in panel.status.value


def test_a_drawn_seed_is_shown_and_repeats_the_answer(panel):
    panel.controls.set(temperature=1.5, seed=-1)
    first, seed = panel.run(), panel.stream.sampling.seed
    assert seed >= 0 and f"seed {seed}" in panel.status_text
    panel.controls.set(seed=seed)
    assert panel.run() == first


def test_the_code_gives_the_answer_again(panel):
    panel.controls.set(temperature=1.2, top_p=0.9, min_p=0.02, repetition_penalty=1.1, seed=7)
    answer, cell = panel.run(), {"model": panel.model, "tokenizer": panel.tokenizer}
    exec(panel.code, cell)
    assert cell["answer"] == answer and panel.code_box.value == panel.code


def test_a_system_prompt_comes_first(panel):
    panel.system.value = "Be brief."
    panel.run()
    assert panel.stream.prompt.startswith("Be brief.")


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
    assert panel.on_main_thread and "Colab" in panel.mode
    panel.generate_button.click()
    assert panel.error is None and "tokens" in panel.status_text
