import pytest

from helpers.generate.engine import Engine
from helpers.generate.generation import base_answers, generate
from helpers.machine.hardware import Choice
from helpers.panels.generation import GenerationPanel


@pytest.fixture
def panel(tiny_llama, tokenizer):
    return GenerationPanel(Engine(tiny_llama, tokenizer), "hi", max_new_tokens=8)


def test_run_answers_like_generate(panel, tiny_llama, tokenizer):
    assert panel.run().strip() == generate(tiny_llama, tokenizer, ["hi"], max_new_tokens=8)[0].text
    assert "tokens" in panel.status_text and not panel.generate_button.disabled and panel.stop_button.disabled


def test_pressing_generate_without_an_event_loop_answers_too(panel):
    panel.generate_button.click()
    assert panel.error is None and panel.outputs["base"].value.startswith("<div")


def test_a_failure_is_shown_kept_and_raised_and_the_panel_goes_on(panel, monkeypatch):
    working = panel.engine.decoder.logits
    monkeypatch.setattr(panel.engine.decoder, "logits", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError):
        panel.run()
    assert "no room" in panel.status.value and isinstance(panel.error, MemoryError)
    monkeypatch.setattr(panel.engine.decoder, "logits", working)
    panel.generate_button.click()
    assert panel.error is None and not panel.generate_button.disabled


def test_a_setting_that_is_refused_is_shown(panel):
    panel.engine.tokenizer.chat_template = "{{ nothing.at.all }}"
    panel.generate_button.click()
    assert "It failed" in panel.status_text and not panel.generate_button.disabled


def test_stop_ends_the_answer(panel, monkeypatch):
    whole, seen = panel.engine.decoder.logits, []

    def press_stop_at_the_fifth(*given):
        seen.append(1)
        if len(seen) == 5:
            panel.stop_button.click()
        return whole(*given)

    panel.engine.decoder.how = Choice(False, "one pass a token")
    monkeypatch.setattr(panel.engine.decoder, "logits", press_stop_at_the_fifth)
    panel.controls.set(max_new_tokens=300, temperature=1.0, seed=3)
    panel.generate_button.click()
    assert panel.done["base"].tokens <= 5 and "you stopped it" in panel.status_text


def test_an_interrupt_stops_the_answer_and_frees_the_panel(panel, monkeypatch):
    slept = []

    def interrupted(seconds):
        slept.append(seconds)
        if len(slept) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("helpers.panels.generation.time.sleep", interrupted)
    panel.controls.set(max_new_tokens=400, temperature=1.0, seed=3)
    panel.answer_now()
    assert panel.job.stop_asked.is_set() and not panel.lock.locked() and panel.error is None


def test_a_second_press_while_one_answer_is_written_does_nothing(panel):
    panel.lock.acquire()
    panel.start()
    assert panel.job is None
    panel.lock.release()


def test_markup_in_an_answer_is_text(panel):
    panel.answers["base"] = "<img src=x onerror=alert(1)>"
    panel.write("<b>status</b>")
    assert "<img" not in panel.outputs["base"].value and "&lt;img" in panel.outputs["base"].value
    assert "<b>" not in panel.status.value and "<img" not in panel.marked("<img src=x>", "base")


def test_a_drawn_seed_is_shown_and_repeats_the_answer(panel):
    panel.controls.set(temperature=1.5, seed=-1)
    first, seed = panel.run(), panel.done["base"].seed
    assert seed >= 0 and f"seed {seed}" in panel.status_text
    panel.controls.set(seed=seed)
    assert panel.run() == first


def test_the_code_gives_the_answer_again(panel):
    panel.controls.set(temperature=1.2, top_p=0.9, min_p=0.02, repetition_penalty=1.1, seed=7)
    answer, cell = panel.run(), {"model": panel.engine.model, "tokenizer": panel.engine.tokenizer}
    exec(panel.code, cell)
    assert cell["answer"] == answer and panel.code_box.value == panel.code


def test_a_system_prompt_comes_first(panel):
    panel.system.value = "Be brief."
    panel.run()
    assert panel.job.streams["base"].prompt.startswith("Be brief.")


def test_base_and_tuned_are_offered_for_a_model_with_an_adapter(tuned_llama, tokenizer):
    with base_answers(tuned_llama):
        before = generate(tuned_llama, tokenizer, ["hi"], max_new_tokens=6)[0].text
    panel = GenerationPanel(Engine(tuned_llama, tokenizer), "hi", max_new_tokens=6)
    assert panel.run().strip() != before
    panel.which.value = "base"
    assert panel.run().strip() == before


def test_on_colab_it_runs_on_the_main_thread(tiny_llama, tokenizer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "google.colab", object())
    panel = GenerationPanel(Engine(tiny_llama, tokenizer), "hi", max_new_tokens=4)
    assert panel.on_main_thread and "Colab" in panel.mode
    panel.generate_button.click()
    assert panel.error is None and "tokens" in panel.status_text


@pytest.fixture
def compared(tuned_llama, tokenizer):
    panel = GenerationPanel(Engine(tuned_llama, tokenizer), "hi", max_new_tokens=8)
    panel.which.value = "both"
    return panel


def test_both_stand_side_by_side_and_the_place_where_they_part_is_marked(compared):
    compared.run()
    base, tuned = (compared.outputs[name] for name in ("base", "tuned"))
    assert base.layout.display is None and tuned.layout.display is None
    assert base.value.count("<mark") == tuned.value.count("<mark") == 1
    assert compared.parting.sentence() in compared.status_text and "base: " in compared.status_text
    compared.which.value = "base"
    compared.run()
    assert (base.layout.display, tuned.layout.display) == (None, "none") and "<mark" not in base.value
    compared.which.value = "tuned"
    compared.run()
    assert (base.layout.display, tuned.layout.display) == ("none", None)


def test_an_error_in_the_second_answer_keeps_the_first(compared, monkeypatch):
    whole = compared.engine.decoder.logits
    broken = lambda *given: (
        whole(*given) if len(compared.job.streams) < 2 else (_ for _ in ()).throw(MemoryError("full"))
    )
    monkeypatch.setattr(compared.engine.decoder, "logits", broken)
    compared.generate_button.click()
    assert isinstance(compared.error, MemoryError) and "lower max_new_tokens" in compared.status_text
    assert compared.answers["base"] and not compared.generate_button.disabled


def test_the_next_token_is_looked_up_only_while_it_is_open(compared):
    tokens = compared.tokens
    compared.controls.set(temperature=1.0)
    assert tokens.look is None
    tokens.box.selected_index = 0
    assert len(tokens.look.rows) == 20 and tokens.buttons[0].description == tokens.look.rows[0].text
    compared.controls.set(top_k=3)
    assert tokens.look.kept == 3 and "3 tokens are left" in tokens.said.value
    compared.controls.choose("Greedy")
    assert "1 token is left" in tokens.said.value
    compared.controls.set(temperature=1.0, top_k=3)
    assert "0.0% after" in tokens.bars[5].value


def test_a_click_goes_on_with_a_token_and_can_be_taken_back(compared):
    compared.which.value = "tuned"
    tokens = compared.tokens
    tokens.box.selected_index = 0
    chosen, first = tokens.look.rows[2].token, tokens.look
    tokens.buttons[2].click()
    assert tokens.begun == [chosen] and tokens.look.rows != first.rows and "So far" in tokens.said.value
    tokens.rest.click()
    assert compared.job.streams["tuned"].begun == [chosen]
    assert compared.answer.startswith(compared.engine.tokenizer.decode([chosen]))
    tokens.back.click()
    assert tokens.look == first and tokens.begun == [] and tokens.back.disabled


def test_another_question_forgets_the_chosen_tokens(compared):
    compared.tokens.box.selected_index = 0
    compared.tokens.buttons[0].click()
    compared.prompt.value = "another"
    assert compared.tokens.begun == [] and compared.request().begun == ()


def test_a_look_that_fails_is_shown_and_kept(compared, monkeypatch):
    monkeypatch.setattr(compared.engine, "look", lambda *_: (_ for _ in ()).throw(RuntimeError("<i>broken</i>")))
    compared.tokens.box.selected_index = 0
    assert isinstance(compared.tokens.error, RuntimeError) and "&lt;i&gt;broken" in compared.tokens.said.value


def test_while_an_answer_is_written_the_table_waits_for_it(compared):
    compared.lock.acquire()
    compared.tokens.box.selected_index = 0
    assert compared.tokens.look is None and "writing" in compared.tokens.said.value
    compared.release()
    assert compared.tokens.look is not None


def test_a_token_is_shown_as_text(compared):
    from helpers.generate.events import NextToken
    from helpers.panels.next_token import bar

    assert "<i" not in bar(NextToken(1, "<i>'\"", 0.5, 0.25)) and "25.0%" in bar(NextToken(1, "a", 0.5, 0.25))


def test_after_an_end_token_nothing_follows(compared):
    compared.tokens.box.selected_index = 0
    compared.tokens.begun = [compared.engine.tokenizer.eos_token_id]
    compared.tokens.refresh()
    assert "ends there" in compared.tokens.said.value and compared.tokens.rest.disabled
    assert compared.tokens.rows[0].layout.display == "none"
    compared.tokens.back.click()
    assert len(compared.tokens.look.rows) == 20 and not compared.tokens.rest.disabled
