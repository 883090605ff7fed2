import base64
import html
import re
import time
from types import SimpleNamespace

import pytest

from helpers.evaluate.lookup import searching
from helpers.evaluate.retrieval import Retriever
from helpers.generate.engine import Engine
from helpers.generate.events import Event
from helpers.generate.generation import base_answers, generate
from helpers.machine.hardware import Choice
from helpers.panels import conversation
from helpers.panels.controls import GREYED, SAMPLED
from helpers.panels.conversation import Exchange
from helpers.panels.generation import NO_QUESTION, GenerationPanel
from helpers.panels.layout import pressed_enter


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


HOSTILE = "<img src=x onerror=alert(1)>'\""


def test_markup_in_a_question_or_an_answer_is_text(panel):
    panel.asked, panel.answers["base"] = HOSTILE, HOSTILE
    panel.exchanges.append(Exchange(HOSTILE, {"base": HOSTILE}))
    panel.write("<b>status</b>")
    panel.widgets.show_thread(panel.exchanges)
    shown = panel.widgets
    for part in (panel.outputs["base"], shown.question, shown.earlier, shown.saved):
        assert "<img" not in part.value and "&lt;img" in part.value
    assert "<b>" not in panel.status.value and "<img" not in conversation.marked(HOSTILE, "base", None)
    assert ">Yes.<" in conversation.answer_html("base", " Yes.")
    assert "<img" not in panel.state()[0], "nor in the picture"
    assert conversation.as_markdown(panel.exchanges).count(f"> {HOSTILE}") == 2, "the file has what was said"


def test_an_empty_question_is_told_so(panel):
    panel.prompt.value = "  \n"
    panel.generate_button.click()
    assert panel.status_text == NO_QUESTION and panel.job is None and not panel.lock.locked()
    with pytest.raises(ValueError, match="question first"):
        panel.run()


def test_enter_sends_the_question_and_a_paste_does_not(panel):
    panel.prompt.value = "hello"
    panel.prompt.value = "hello\n"
    assert panel.prompt.value == "hello" and panel.exchanges[-1].question == "hello"
    panel.prompt.value = "two lines\nthat are pasted\n"
    assert len(panel.exchanges) == 1


@pytest.mark.parametrize(
    ("old", "new", "sent"),
    [
        ("a", "a\n", True),
        ("ab", "a\nb", True),
        ("a\n", "a\n\n", True),
        ("wha", "what is it?\n", True),
        ("", "pasted\n", False),
        ("", "\n", True),
        ("a", "ab", False),
        ("a\n", "a", False),
        ("x", "x and a long text that came from somewhere else\n", False),
        ("a", "a\nb\n", False),
    ],
)
def test_enter_is_told_from_other_changes(old, new, sent):
    assert pressed_enter(old, new) == sent


def test_an_example_is_asked_by_its_button(tiny_llama, tokenizer):
    panel = GenerationPanel(Engine(tiny_llama, tokenizer), "hi", max_new_tokens=4, examples=["one?", "two?"])
    panel.examples[1].click()
    assert panel.exchanges[-1].question == "two?" and panel.prompt.value == "two?"


def test_what_was_said_is_read_only_where_the_conversation_is_kept(panel):
    panel.run()
    first = panel.exchanges[0]
    panel.prompt.value = "and then?"
    assert panel.request().earlier == () and [m["content"] for m in panel.request().messages("base")] == ["and then?"]
    panel.keep.value = True
    said = [m["content"] for m in panel.request().messages("base")]
    assert said == ["hi", first.answers["base"], "and then?"]
    panel.run()
    assert first.answers["base"] in panel.job.streams["base"].prompt and not panel.exchanges[1].starts
    done = panel.done["base"]
    assert f"The conversation has {done.read + done.tokens:,} tokens of the {done.context:,}" in panel.status_text
    panel.keep.value = False
    panel.run()
    assert panel.exchanges[2].starts and panel.widgets.earlier.value.count("You:") == 2
    panel.keep.value = True
    assert [turn.question for turn in panel.request().earlier] == ["and then?"], "from the last beginning on"


def test_clear_forgets_the_thread(panel):
    panel.keep.value = True
    panel.run()
    panel.clear_button.click()
    assert panel.exchanges == [] and panel.request().earlier == () and "You:" not in panel.widgets.question.value
    assert "Nothing has been asked" in panel.widgets.saved.value and panel.answer == ""


def test_the_conversation_can_be_copied_and_downloaded(panel):
    panel.run()
    saved = panel.widgets.saved.value
    encoded = re.search(r"base64,([^\"]*)", saved)[1]
    text = base64.b64decode(encoded).decode()
    assert text == panel.widgets.text.value == conversation.as_markdown(panel.exchanges)
    assert text.startswith("**You**\n\n> hi\n") and "**Base model**" in text and 'download="conversation.md"' in saved


def test_knobs_that_change_nothing_are_greyed_with_the_reason(panel):
    numbers, seed = panel.controls.numbers, panel.controls.seed
    for name in SAMPLED:
        assert numbers[name].box.disabled and numbers[name].slider.disabled and GREYED in numbers[name].note.value
    assert seed.disabled and not numbers["repetition_penalty"].box.disabled
    panel.controls.set(temperature=0.5)
    assert not any(numbers[name].box.disabled for name in SAMPLED) and not seed.disabled
    assert GREYED not in numbers["top_k"].note.value


def test_a_preset_says_what_it_sets(panel):
    note = panel.controls.preset_note
    assert "sets temperature 0, the others off: the likeliest token each time" in note.value
    panel.controls.choose("Creative")
    assert "sets temperature 1, min_p 0.05, the others off" in note.value
    panel.controls.set(top_k=3)
    assert "as you set them" in note.value


def test_the_panel_leaves_a_picture(panel, monkeypatch):
    shown, updates = [], []
    handle = SimpleNamespace(update=lambda bundle, raw: updates.append(bundle))
    monkeypatch.setattr("helpers.panels.picture.display", lambda bundle, **_: shown.append(bundle) or handle)
    panel.show()
    (bundle,) = shown
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.box.model_id
    assert "temperature" in bundle["text/html"] and bundle["text/plain"].startswith("You: hi")
    panel.run()
    assert updates == [], "a live front end would draw the panel again"
    monkeypatch.setenv("FT_HEADLESS", "1")
    answer = panel.run()
    assert html.escape(answer) in updates[0]["text/html"] and answer in updates[0]["text/plain"]


def test_waiting_is_told_with_its_seconds(panel):
    panel.begun_at = time.perf_counter() - 7
    assert panel.patience() == "thinking ... 7 s; the first answer also lays the model out for speed"
    panel.show_status(panel.note(Event("reading", value=(128, 900))))
    assert panel.status_text == "reading your prompt: 128 of 900 tokens"
    assert panel.patience() == "", "what is said already is more exact"
    panel.show_status("thinking ...")
    panel.answers["base"] = "It"
    assert panel.patience() == ""


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


def test_where_no_kernel_runs_nbconvert_shows_the_picture_and_no_widget(panel, monkeypatch):
    import nbformat
    from nbconvert import HTMLExporter

    shown = []
    monkeypatch.setattr("helpers.panels.picture.display", lambda bundle, **_: shown.append(bundle))
    panel.run()
    panel.show()
    output = nbformat.v4.new_output("display_data", data=shown[0])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("panel.show()", outputs=[output])])
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    assert "run the notebook to use it" in page and html.escape(panel.answer) in page and "<th" in page
    assert panel.box.model_id not in page, "no empty place of a widget"


@pytest.fixture
def searching_panel(tiny_llama, tokenizer):
    search = searching(Retriever(["The <b>pen</b> costs 4 euros.", "Free tea."]), places={"Free tea.": "a.md"})
    return GenerationPanel(Engine(tiny_llama, tokenizer, search), "pen costs", max_new_tokens=4)


def test_what_a_search_finds_is_read_and_shown_beside_the_answer(searching_panel, tiny_llama, tokenizer):
    panel = searching_panel
    asked = panel.engine.search("pen costs").prompt
    assert (
        "<b>pen</b>" in asked
        and panel.run().strip() == generate(tiny_llama, tokenizer, [asked], max_new_tokens=4)[0].text
    )
    assert panel.exchanges[0].question == "pen costs" and panel.passages == (("The <b>pen</b> costs 4 euros.", ""),)
    for shown in (panel.widgets.passages.value, conversation.thread_html(panel.exchanges)):
        assert "The &lt;b&gt;pen&lt;/b&gt; costs" in shown
    assert "> The <b>pen</b> costs" in conversation.as_markdown(panel.exchanges)
    panel.prompt.value = "tea"
    panel.run()
    assert "a.md" in panel.widgets.passages.value and "Free tea." in panel.code
    panel.widgets.search.value = False
    panel.run()
    assert panel.widgets.passages.value == "" and panel.passages is None and "Notes:" not in panel.code


def test_the_next_token_is_that_of_the_question_with_its_passages(searching_panel):
    panel = searching_panel
    panel.tokens.box.selected_index = 0
    read = panel.tokens.look
    panel.widgets.search.value = False
    assert panel.tokens.look != read


def test_without_a_sheet_there_is_nothing_to_search(panel):
    assert panel.widgets.search.layout.display == "none" and panel.request().search is False
