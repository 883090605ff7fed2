import importlib.util
import json

import pytest
import torch

from helpers.evaluate.evaluation import answer_all, batch_that_fits
from helpers.evaluate.likelihood import text_nll
from helpers.evaluate.pictures import curves, curves_alt, forgetting, forgetting_alt, quality_against_cost, quality_alt
from helpers.evaluate.retrieval import Retriever
from helpers.evaluate.shop import INSTRUCTIONS
from helpers.evaluate.systems import asked_in, five_systems, measure, own_template, table, unknowns
from helpers.evaluate.uses import chrf, hint_fault, read_use
from helpers.generate.generation import base_answers, generate
from helpers.machine.paths import PROJECT
from helpers.settings import resolve
from helpers.train.adapters import train_adapter


def example(question, answer, slice_name="shop", match=(("7",),)):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "slice": slice_name, "match": [list(group) for group in match], "forbid": []}


ROWS = [example("How much is the pen?", "It is 7 euros."), example("Can I fly?", "ask", "unanswerable", (("desk",),))]


@pytest.fixture
def systems():
    return five_systems(
        Retriever(["The pen costs 7 euros.", "We open on Monday."]), [example("Ink?", "5.")], 1, "guanaco"
    )


def test_the_five_read_what_their_names_say(systems):
    plain, prompt, rag, tuned, both = (system.messages("How much is the pen?") for system in systems)
    assert plain == tuned == [{"role": "user", "content": "How much is the pen?"}]
    assert prompt[0] == rag[0] == {"role": "system", "content": INSTRUCTIONS}
    assert [message["content"] for message in prompt[1:]] == ["Ink?", "5.", "How much is the pen?"]
    assert "- The pen costs 7 euros.\nQuestion: How much" in rag[-1]["content"] and "Monday" not in rag[-1]["content"]
    assert len(both) == 1 and both[0] == rag[-1]
    assert [system.tuned for system in systems] == [False, False, False, True, True]


def test_each_answers_as_its_model_would_alone(systems, tuned_llama, tokenizer, monkeypatch):
    monkeypatch.setattr(
        "helpers.evaluate.evaluation.cpu_has_bf16", lambda: False
    )  # bfloat16 may tip a random model's tokens
    for system in (systems[2], systems[4]):
        found = measure(system, tuned_llama, tokenizer, ROWS, max_new_tokens=6)
        conversations = [system.messages(row["messages"][0]["content"]) for row in ROWS]
        if system.tuned:
            alone = [generate(tuned_llama, tokenizer, [c], max_new_tokens=6)[0].text for c in conversations]
        else:
            with base_answers(tuned_llama):
                alone = [generate(tuned_llama, tokenizer, [c], max_new_tokens=6)[0].text for c in conversations]
        assert found.texts == alone and found.generated_tokens <= 6 < found.prompt_tokens and found.seconds > 0


def test_facts_refusals_and_inventions_are_counted(systems, tuned_llama, tokenizer, monkeypatch):
    from helpers.generate.generation import Answer

    said = [Answer("It is 7 euros. Happy writing!", 5, True), Answer("Sorry, that is not on my sheet.", 5, False)]
    monkeypatch.setattr("helpers.evaluate.systems.answer_all", lambda *_, **__: said)
    found = measure(systems[0], tuned_llama, tokenizer, ROWS, max_new_tokens=6)
    assert found.facts == [True, False] and found.signed == [True, False] and found.refused == [False, True]
    (row,) = table([found], ROWS, {"plain base": "nothing"}).rows
    assert row[0] == "plain base" and row[1].startswith("100%") and row[-1] == "nothing"
    assert unknowns([found], ROWS).rows == [["plain base", "1", "0", "0"]]  # refused, invented, refused wrongly


def test_a_template_is_used_for_a_while_only(tokenizer):
    before = tokenizer.chat_template
    with asked_in(tokenizer, "guanaco"):
        pass
    assert tokenizer.chat_template == before and own_template(tokenizer) == "guanaco"


def test_answers_keep_their_order_in_any_batch(tuned_llama, tokenizer, monkeypatch):
    monkeypatch.setattr("helpers.evaluate.evaluation.cpu_has_bf16", lambda: False)
    asked = ["a long question, longer than the rest of them", "b", "a middling question"]
    by_one = answer_all(tuned_llama, tokenizer, asked, max_new_tokens=5, batch_size=1)
    assert answer_all(tuned_llama, tokenizer, asked, max_new_tokens=5, batch_size=3) == by_one
    assert by_one == [generate(tuned_llama, tokenizer, [question], max_new_tokens=5)[0] for question in asked]


def test_a_batch_takes_at_most_half_of_the_memory(tiny_llama, tiny_falcon):
    small, large = (batch_that_fits(tiny_llama.config, length, 0.01) for length in (2000, 20))
    assert 1 <= small < large and batch_that_fits(tiny_llama.config, 10**9, 0.01) == 1
    assert batch_that_fits(tiny_falcon.config, 200, 0.01) > 1


def test_the_nll_of_text_is_the_models_own_loss(tiny_llama, tokenizer):
    texts = ["The river bends twice.", "A loaf of bread.", "Iron rusts when it meets water and air."] * 8
    summed = count = 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            loss = tiny_llama(input_ids=ids, labels=ids).loss
        summed, count = summed + float(loss) * (ids.shape[1] - 1), count + ids.shape[1] - 1
    assert text_nll(tiny_llama, tokenizer, texts) == pytest.approx(summed / count, rel=1e-4)


HINTS = [  # written and judged by hand
    ("Hint 1: 7 x 7 is near.", 7, 8, 1, ""),
    ("Hint 1: 6 x 8 is near.", 7, 8, 1, ""),
    ("Hint 1: 7 x 5 is near.", 7, 8, 1, "its steps lead elsewhere"),
    ("Hint 2: take 7 x 7 and add one more 7.", 7, 8, 2, ""),
    ("Hint 2: take 7 x 7 and add one more 8.", 7, 8, 2, "its steps lead elsewhere"),
    ("Hint 2: take 8 x 6 and add one more 8.", 8, 7, 2, ""),
    ("Hint 1: 7 x 7 is near.", 7, 8, 2, "another level than was asked for, or no hint"),
    ("Hint 2: it is 56.", 7, 8, 2, "it gives the answer away"),
    ("Hint 2: take 7 x 7 and add one more 7. 56", 7, 8, 2, "it gives the answer away"),
    ("Hint 2: think.", 7, 8, 2, "no step that leads to the product"),
    ("Hint 2: take 156 x 1", 7, 8, 2, "no step that leads to the product"),
    ("", 7, 8, 1, "another level than was asked for, or no hint"),
]


@pytest.mark.parametrize(("answer", "a", "b", "level", "fault"), HINTS)
def test_a_hint_is_judged_by_rule(answer, a, b, level, fault):
    assert hint_fault(answer, a, b, level) == fault


def test_every_row_of_the_tutoring_data_passes_its_own_rule():
    for side in ("train", "test"):
        for row in read_use("tutoring", side):
            assert hint_fault(row["messages"][1]["content"], row["a"], row["b"], row["level"]) == ""


def test_chrf_is_100_for_the_reference_and_falls_with_the_difference():
    reference = ["我想要一本蓝色的笔记本。"]
    near = chrf(["我想要一本红色的笔记本。"], reference, True)
    assert chrf(reference, reference, True) == pytest.approx(100) and 30 < near < 100
    assert chrf(["no"], reference, True) < 5 < chrf(["I like it"], ["I like this"], False)


def test_the_uses_are_as_their_rules_build_them_and_nothing_held_out_is_trained():
    spec = importlib.util.spec_from_file_location("build_uses", PROJECT / "data" / "uses" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    for name, text in build.build().items():
        assert (PROJECT / "data" / "uses" / name).read_text(encoding="utf-8") == text
    for use in ("translation", "tutoring"):
        sides = [
            {json.dumps(row["messages"], ensure_ascii=False) for row in read_use(use, side)}
            for side in ("train", "test")
        ]
        assert len(sides[0]) > 4 * len(sides[1]) * 0.75 and not sides[0] & sides[1]


def test_a_small_training_goes_on_from_an_adapter_and_leaves_no_trace_of_the_last(tmp_path):
    settings = resolve("smoke")
    rows = [example("How much?", "It is 7 euros."), example("Why?", "So.")] * 4
    first = train_adapter(settings, rows, tmp_path / "one", steps=2)
    (tmp_path / "one" / "left.txt").write_text("old")
    again = train_adapter(settings, rows, tmp_path / "one", steps=2)
    assert not (tmp_path / "one" / "left.txt").exists() and again.tokens == first.tokens > 0
    further = train_adapter(settings, rows, tmp_path / "two", steps=1, learning_rate=1e-12, start=again.folder)
    weights = [
        torch.cat([w.flatten() for n, w in trained.model.named_parameters() if "lora_B" in n])
        for trained in (again, further)
    ]
    torch.testing.assert_close(*weights, atol=1e-9, rtol=0)
    assert weights[0].any()


def test_pictures_say_what_they_show():
    from helpers.evaluate.intervals import Interval

    points = {"RAG": (Interval(0.5, 0.4, 0.6), 250.0), "fine-tuned": (Interval(0.9, 0.8, 1.0), 50.0)}
    assert "RAG 50% for 250 s" in quality_alt(points) and quality_alt(points).endswith("Most facts: fine-tuned.")
    values = {"base": 3.7, "shop alone": 3.9}
    assert "shop alone 3.90" in forgetting_alt(values)
    for made in (quality_against_cost(points), forgetting(values)):
        (axis,) = made.get_axes()
        assert axis.get_xlabel()


def test_no_system_is_left_out_of_a_picture():
    from helpers.evaluate.intervals import Interval

    points = {f"system {number}": (Interval(0.5, 0.4, 0.6), 50.0 + number) for number in range(8)}
    (axis,) = quality_against_cost(points).axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(points)
    (axis,) = curves({name: [(1, 4.0), (2, 3.5)] for name in points}).axes
    assert len(axis.lines) == len(points)


def test_two_curves_are_told_apart_and_their_distance_is_said():
    losses = {"one process": [(1, 4.0), (2, 3.5)], "two processes": [(1, 4.0), (2, 3.53)]}
    (axis,) = curves(losses).axes
    assert [line.get_label() for line in axis.lines] == list(losses)
    assert axis.lines[0].get_linewidth() > axis.lines[1].get_linewidth(), "a line that is covered must stay in sight"
    assert list(axis.lines[1].get_ydata()) == [4.0, 3.53]
    assert "two processes from 4.000 to 3.530" in curves_alt(losses) and "3.0e-02 apart" in curves_alt(losses)
