"""Exercises, hints, predictions, progress and pass codes. Notebooks are not run here: tests/notebooks does that."""

import math
import re
import signal
import statistics
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch
from bitsandbytes.functional import get_4bit_type

from helpers.data import read_own
from helpers.evaluate.systems import Measured
from helpers.lessons import check, exercise, pass_code, predict, progress_map, revealed
from helpers.lessons.answers_06 import least_cards
from helpers.lessons.check import LessonError, exercises, notebooks, verdict_on
from helpers.lessons.exercise import untouched
from helpers.lessons.pass_code import codes_table, make_code, read_code
from helpers.lessons.progress import progress_file, read_progress
from helpers.lessons.questions import QUESTIONS
from helpers.lessons.quiz import CHOSEN, MEASURED, Quiz
from helpers.lessons.source import read_exercises
from helpers.models import tiny
from helpers.models.load import not_quantized

NF4 = get_4bit_type("nf4", device="cpu")
torch.manual_seed(0)
BLOCK = torch.randn(64) * 0.02
TOKENIZER = tiny.build_tokenizer()
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }} {% else %}A: "
    "{% generation %}{{ m.content + eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)
TOKENIZER.chat_template = TEMPLATE


def fitted():
    scaled, levels = BLOCK / BLOCK.abs().max(), NF4.clone()
    for _ in range(20):
        codes = (scaled[:, None] - levels).abs().argmin(dim=1)
        means = [scaled[codes == c].mean() if (codes == c).any() else levels[c] for c in range(16)]
        levels = torch.stack(means)
    return levels


def nearest(block, levels, scale):
    return levels[(block[:, None] / scale - levels).abs().argmin(dim=1)]


def best_fit(lengths, limit):
    bins = []
    for length in sorted(lengths, reverse=True):
        fitting = [one for one in bins if sum(one) + length <= limit]
        if fitting:
            max(fitting, key=sum).append(length)
        else:
            bins.append([length])
    return bins


def softmax(values):
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def top_p(shares, p, short=0, ordered=True):
    total = 0.0
    for count, share in enumerate(sorted(shares, reverse=True) if ordered else shares, 1):
        total += share
        if total >= p - 1e-9:
            return count - short
    return len(shares)


def rate_of(chinese):
    from helpers.lessons.answers_02 import rate

    return rate({"tokenizer": TOKENIZER}, chinese)


def card(steps=8, **more):
    losses = {"first_loss": 4.2, "last_loss": 3.1, "evaluation_loss": 3.3}
    return {"steps": steps, "stopped_at": None, "resumed_from": None, "finished": True, **losses, **more}


def system(prompt_tokens):
    return Measured("RAG", [True], [False], [True], [False], prompt_tokens, 5.0, 0.1, [""])


def share(ranked, wanted, k):
    return sum(right in first[:k] for first, right in zip(ranked, wanted, strict=True)) / len(wanted)


def borders(values, factor):
    mean, half = statistics.fmean(values), factor * statistics.stdev(values)
    return mean - half, mean + half


def stops_after(losses, patience, before=False):
    in_vain = 0
    for place in range(1, len(losses)):
        better = losses[place] < (losses[place - 1] if before else min(losses[:place]))
        in_vain = 0 if better else in_vain + 1
        if in_vain == patience:
            return place + 1
    return len(losses)


MORE = {"00.3": {"tokenizer": TOKENIZER}, "01.3": {"block": BLOCK}, "02.2": {"lengths": [3, 9, 4]}}
MORE |= {"02.1": {"tokenizer": TOKENIZER}, "02.3": {"tokenizer": TOKENIZER}}
BETTER = card(last_loss=2.9, evaluation_loss=3.2)
STOPPED, RESUMED = card(4, stopped_at=4, finished=False), card(resumed_from=4)
UNKNOWN = {"Do you sell umbrellas?": "No.", "Who painted it?": "Ada.", "Can I charter your van?": "No."}
# number: (right, (wrong with the first hint, with the second, with the third))
ANSWERS = {
    "00.1": ("datacenter", ("colab", "laptop", "A100")),
    "00.2": (
        ValueError("float16 on a CPU is slow and overflows: use dtype='float32', or autocast='bfloat16'."),
        (type("Settings", (), {"reasons": {}})(), ValueError, "error"),
    ),
    "00.3": (
        lambda text: len(TOKENIZER(text)["input_ids"]),
        (len, lambda text: len(text.split()), lambda text: len(TOKENIZER(text))),
    ),
    "01.1": (4.02, (3.42, 3.915, 32.2)),
    "01.2": (
        lambda b, levels: nearest(b, levels, b.abs().max()) * b.abs().max(),
        (
            lambda b, levels: nearest(b, levels, b.abs().max()),
            lambda b, levels: nearest(b, levels, b.max()) * b.max(),
            lambda b, levels: b,
        ),
    ),
    "01.3": (fitted(), (torch.linspace(-1, 1, 17), fitted() * 0.02, NF4)),
    "01.4": (
        RuntimeError(not_quantized("tiny-falcon", "0 of 24 linear layers are 4-bit")),
        (torch.nn.Linear(2, 2), RuntimeError, "a warning"),
    ),
    "02.1": (rate_of(True), (1 / rate_of(True), rate_of(False), 77.0)),
    "02.2": (9, (4, 256, 1)),
    "02.3": (
        TEMPLATE.replace(" + eos_token", ""),
        (TEMPLATE, TEMPLATE.replace("{{ m.content + eos_token }}", "{{ 'x' }}"), "{% for"),
    ),
    "02.4": (
        best_fit,
        (
            lambda lengths, limit: [[max(lengths)]],
            lambda lengths, limit: [lengths],
            lambda lengths, limit: [[length] for length in lengths],
        ),
    ),
    "03.1": (lambda r, a, b: r * (a + b), (lambda r, a, b: r * a, lambda r, a, b: r * a * b, lambda r, a, b: a + b)),
    "03.2": (lambda v: math.log(v), (lambda v: 1 / v, lambda v: -math.log(v), lambda v: math.log2(v))),
    "03.3": (([4.0, 3.9], [4.0, 2.0]), (([4.0], [2.0, 1.0]), ([4.0, 3.9], [4.0, 3.9]), ([4.0, 2.0], [4.0, 3.9]))),
    "03.4": ((STOPPED, RESUMED), ((card(), RESUMED), (STOPPED, card()), [STOPPED])),
    "03.5": ({8: card(), 32: BETTER}, ({8: card(), 32: card()}, {8: card(4), 32: BETTER}, {8: 3.1, 32: 2.9})),
    "04.1": (
        lambda logits, t: softmax([x / t for x in logits]),
        (
            lambda logits, t: softmax([x * t for x in logits]),
            lambda logits, t: [math.exp(x / t) for x in logits],
            lambda logits, t: softmax(logits),
        ),
    ),
    "04.2": (
        top_p,
        (lambda s, p: top_p(s, p, 1), lambda s, p: top_p(s, p, 0, False), lambda s, p: sum(x >= p for x in s)),
    ),
    "04.3": (UNKNOWN, ({"Do you sell umbrellas?": "No."}, None, dict.fromkeys(UNKNOWN, 3))),
    "04.4": ({0.3: 5, 1.0: 5, 2.0: 1}, ({1.0: 5}, {0.1: 5, 0.3: 5, 0.5: 5}, {0.3: 5, 1.0: 9, 2.0: 9})),
    "05.1": (
        share,
        (
            lambda r, w, k: share(r, w, k) * len(w),
            lambda r, w, k: sum(x[k - 1] == y for x, y in zip(r, w, strict=True)) / len(w),
            lambda r, w, k: share(r, w, k - 1),
        ),
    ),
    "05.2": (
        lambda once, change, a, changes, n: once + change * changes + a * n,
        (
            lambda once, change, a, changes, n: once + a * n,
            lambda once, change, a, changes, n: (once + a) * n + change * changes,
            lambda once, change, a, changes, n: a * n,
        ),
    ),
    "05.3": (
        {1: system(90.0), 5: system(210.0)},
        ({1: system(90.0)}, {1: system(90.0), 5: system(90.0)}, {1: system(210.0), 5: system(90.0)}),
    ),
    "06.1": (
        lambda W, A, B, r, alpha: W + alpha / r * B @ A,
        (
            lambda W, A, B, r, alpha: W + B @ A,
            lambda W, A, B, r, alpha: W + alpha * B @ A,
            lambda W, A, B, r, alpha: W + A @ B,
        ),
    ),
    "06.2": (least_cards(), (1, 64, 0)),
    "06.3": ([0.6, 0.5], ([0.6], [0.6, 0.001], [-1.0, 0.5])),
    "06.4": ({4: [4.0, 3.9], 8: [4.1, 4.0]}, ({4: [4.0]}, {4: [4.0], 8: [4.1, 4.0]}, {4: [4.0, 3.9], 8: [4.0, 3.9]})),
    "07.1": (
        lambda v: borders(v, 4.303 / math.sqrt(len(v))),
        (
            lambda v: borders(v, 1.96 / math.sqrt(len(v))),
            lambda v: borders(v, 4.303),
            lambda v: borders(v, 4.303 / math.sqrt(len(v)))[::-1],
        ),
    ),
    "07.2": (
        lambda n, steps: n * steps / 4 + -(-n // 2) * steps / 4 + steps,
        (
            lambda n, steps: n * steps,
            lambda n, steps: n * steps / 4 + -(-n // 2) * steps / 2 + 2 * steps,
            lambda n, steps: n * steps / 4 + n / 2 * steps / 4 + steps,
        ),
    ),
    "07.3": (
        stops_after,
        (
            lambda losses, patience: stops_after(losses, patience, before=True),
            lambda losses, patience: stops_after(losses, patience + 1),
            lambda losses, patience: losses.index(min(losses)) + patience,
        ),
    ),
    "07.4": ({16: 2.1, 64: 1.4, 256: 2.9}, ({64: 1.4}, {16: 1.4, 64: 1.4, 256: 1.4}, {16: -0.2, 64: 0.5, 256: 0.1})),
}
each = pytest.mark.parametrize("number", ANSWERS)


def wrong_answers(number):
    """The three wrong answers; for 04.3 the second needs the shop's rows."""
    from helpers.lessons.answers_04 import known_questions

    asked = dict.fromkeys(sorted(known_questions())[:3], "4.20")
    return [asked if one is None else one for one in ANSWERS[number][1]]


def test_every_exercise_has_answers_here_and_three_different_hints():
    known = {number: one for notebook in notebooks() for number, one in exercises(notebook).items()}
    assert list(known) == list(ANSWERS)
    for one in known.values():
        assert len({hint.text for hint in one.hints}) == 3 and len(one.hints) == 3


@each
def test_the_solution_is_right_and_each_wrong_answer_has_its_own_hint(number):
    given = MORE.get(number, {})
    assert verdict_on(number, ANSWERS[number][0], **given).state == "right"
    verdicts = [verdict_on(number, answer, **given) for answer in wrong_answers(number)]
    assert [(one.state, one.hint) for one in verdicts] == [("not yet", place) for place in (1, 2, 3)], verdicts


@each
def test_an_untouched_stub_was_not_tried_and_is_not_kept(number, capsys):
    def stub(*anything):
        return ...

    for answer in (..., stub):
        check(number, answer, **MORE.get(number, {}))
        assert "Not tried yet" in capsys.readouterr().out
    assert not progress_file().exists()


def in_place(block, levels):
    absmax = block.abs().max().clone()
    block /= absmax
    return levels[(block[:, None] - levels).abs().argmin(dim=1)] * absmax


def heated(logits, temperature):
    for place, logit in enumerate(logits):
        logits[place] = math.exp(logit / temperature)
    return [power / sum(logits) for power in logits]


def shortened(ranked, wanted, k):
    for passages in ranked:
        del passages[k:]
    return sum(right in best for best, right in zip(ranked, wanted, strict=True)) / len(wanted)


def scaled_first(W, A, B, r, alpha):
    B *= alpha / r
    return W + B @ A


@pytest.mark.parametrize(
    ("number", "answer"), [("01.2", in_place), ("04.1", heated), ("05.1", shortened), ("06.1", scaled_first)]
)
def test_a_function_that_writes_into_what_it_gets_is_judged_by_what_it_gives(number, answer):
    assert verdict_on(number, answer).state == "right"
    assert verdict_on(number, ANSWERS[number][0]).state == "right", "what it wrote is no matter of the next answer"
    if number == "01.2":
        undone = lambda block, levels: in_place(block, levels) * 0 + block
        assert verdict_on(number, undone).state == "not yet"


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("01.1", np.float32(4.02)),
        ("01.1", torch.tensor([4.02])),
        ("01.2", lambda block, levels: in_place(block.double(), levels.double()).numpy()),
        ("02.2", np.int64(9)),
        ("02.2", torch.tensor(9)),
        ("02.2", 9.0),
        ("03.3", np.array([[4.0, 3.9], [4.0, 2.0]])),
        ("06.1", lambda W, A, B, r, alpha: W.double().numpy() + alpha / r * (B.double() @ A.double()).numpy()),
        ("06.2", np.int64(least_cards())),
        ("06.3", torch.tensor([0.6, 0.5])),
    ],
)
def test_a_right_answer_is_right_as_numpy_and_torch_give_it(number, answer):
    assert verdict_on(number, answer, **MORE.get(number, {})).state == "right"


@pytest.mark.parametrize(
    ("number", "answer", "hint"),
    [
        ("00.2", "float16 is the fastest choice on every CPU, and never overflows", 3),
        ("01.3", torch.cat([fitted()[:15], torch.tensor([math.nan])]), 1),
        ("01.4", "all of its linear layers are 4-bit", 3),
        ("04.2", lambda shares, p: top_p(shares, p) + 0.5, 3),
        ("04.4", {0.3: 1.0, 1.0: 0.8, 2.0: 0.2}, 3),
        ("04.4", {0.3: True, 1.0: True, 2.0: False}, 3),
        ("06.3", [0.61, 0.006], 2),
        ("07.3", lambda losses, patience: stops_after(losses, patience) + 0.4, 3),
    ],
)
def test_a_wrong_answer_is_not_taken_for_a_right_one(number, answer, hint):
    verdict = verdict_on(number, answer, **MORE.get(number, {}))
    assert (verdict.state, verdict.hint) == ("not yet", hint)


def test_a_question_of_the_test_rows_has_an_answer_on_the_sheet_too():
    trained = {row["messages"][-2]["content"] for row in read_own("train")}
    other = [row["messages"][-2]["content"] for row in read_own("test") if row["slice"] == "shop"]
    asked = UNKNOWN | dict.fromkeys([question for question in other if question not in trained][:1], "4.20")
    assert len(asked) == 4 and verdict_on("04.3", asked).hint == 2


def test_an_answer_with_dots_of_its_own_counts_as_tried():
    assert untouched(lambda x: ...) and not untouched(lambda x: x[..., None] + 1)


def test_an_error_in_a_readers_function_is_a_hint_and_no_error():
    verdict = verdict_on("03.1", lambda r, a, b: 1 / 0)
    assert verdict.hint == 3 and "ZeroDivisionError" in verdict.text


def test_an_answer_that_never_ends_is_stopped_even_where_it_catches_every_error(monkeypatch):
    monkeypatch.setattr(exercise, "SECONDS", 0.3)

    def forever(shares, top_p):
        while True:
            with suppress(Exception):
                sum(shares)

    before = signal.getsignal(signal.SIGALRM)
    verdict = verdict_on("04.2", forever)
    assert verdict.state == "not yet" and "never ends" in verdict.text
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_answer_that_came_out_as_nothing_was_tried():
    assert verdict_on("01.1", None).state == "not yet" and "NoneType" in verdict_on("01.1", None).text


def test_an_answer_of_another_type_says_which_one_is_asked_for():
    assert "a number here" in verdict_on("01.1", "four").text
    assert "a function here" in verdict_on("03.1", 42).text
    assert all("a list here" in verdict_on(number, "four").text for number in ("03.3", "03.4", "06.3"))


@each
def test_whatever_somebody_answers_a_check_says_a_sentence_and_raises_nothing(number, capsys):
    odd = (object(), 3.5, float("nan"), -1, True, "x", b"x", [], [[]], [None], {}, {1: None}, (1, 2), set(), len, int)
    for answer in (*odd, lambda *anything: 1 / 0, torch.zeros(2, 2), ValueError()):
        verdict = verdict_on(number, answer, **MORE.get(number, {}))
        assert verdict.state in ("right", "not yet") and verdict.text.startswith(("Right.", "Not yet"))


def test_an_unknown_number_names_those_that_there_are():
    with pytest.raises(LessonError, match=r"03\.1, 03\.2"):
        check("03.9", 1)


def test_the_checks_are_about_the_exercises_that_are_written_down():
    for notebook in notebooks():
        assert [one.number for one in read_exercises(notebook)] == list(exercises(notebook))


def test_progress_keeps_what_was_right_once_and_counts_the_tries(capsys):
    for answer in (3.42, 4.02, 3.42):
        check("01.1", answer)
    kept = read_progress()["exercises"]["01.1"]
    assert kept["right"] is True and kept["tries"] == 3
    row = next(row for row in progress_map().rows if row[0] == "01")
    assert row[1].startswith("1 of 4")


def test_a_damaged_progress_file_costs_itself_alone(capsys):
    progress_file().parent.mkdir(parents=True)
    for text in ("{", "[]", '{"exercises": 3, "predictions": {"00.dtype": 1}}'):
        progress_file().write_text(text)
        assert all(part == {} for part in read_progress().values())
        assert progress_map().rows
    check("01.1", 4.02)
    assert read_progress()["exercises"]["01.1"]["right"] is True


@pytest.mark.parametrize("text", ['{"exercises": {"00.1": {"right": tr', "[]", '{"exercises": 3}'])
def test_a_damaged_progress_file_is_kept_aside_with_a_word(text, capsys):
    progress_file().parent.mkdir(parents=True)
    progress_file().write_text(text)
    check("01.1", 4.02)
    assert progress_file().with_name("progress.damaged.json").read_text() == text
    assert "progress.json is damaged" in capsys.readouterr().out
    check("01.1", 4.02)
    assert "damaged" not in capsys.readouterr().out and read_progress()["exercises"]["01.1"]["tries"] == 2


def test_the_solutions_leave_no_record(monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["helpers.lessons.check"], "RECORDING", [False])
    check("01.1", 4.02)
    assert not progress_file().exists()


def test_a_pass_code_says_what_was_done_and_notices_a_changed_letter(capsys):
    check("01.1", 4.02)
    pass_code("01", "Ada  Lovelace-名 <b>")
    code = read_progress()["codes"]["01"]["code"]
    one = read_code(code)
    assert one.name == "Ada Lovelace-名 <b>" and one.done == ("01.1",) and one.intact
    (row,) = codes_table([code.replace("Ada", "Eve")]).rows
    assert row[0].startswith("Eve") and row[4].startswith("no")
    assert "<b>" not in codes_table([code])._repr_html_()
    assert "not identity" in capsys.readouterr().out


def test_codes_of_another_version_and_texts_that_are_none_are_rows_as_well():
    rows = codes_table([make_code("03", ["03.1"], "Ada", version="0.0.9"), "hello", "77-1-1-x-y"]).rows
    assert rows[0][3] == "another: 0.0.9" and "no pass code" in rows[1][4] and "unknown notebook" in rows[2][2]


def test_a_code_that_somebody_made_counts_nothing_twice_and_adds_no_row():
    code = make_code("03", ["03.1", "03.1", "03.1"], "Ada").replace("Ada", "Ada~a~Eve")
    (row,) = codes_table([code]).rows
    assert row[0] == "Ada Eve" and row[2] == "1 of 5: 03.1"


def test_a_code_that_two_handed_in_and_one_with_an_exercise_that_is_none_are_told():
    code, made_up = make_code("03", ["03.1"], "Ada"), make_code("03", ["03.1", "03.9"], "Eve")
    alone, *twice = (row[4] for row in codes_table([made_up, code, f" {code}"]).rows)
    assert alone == "no: there is no exercise 03.9" and twice == ["yes, given 2 times"] * 2
    assert codes_table([code]).rows[0][4] == "yes"


def test_the_command_prints_a_table_of_codes():
    code = make_code("03", ["03.1", "03.2"], "Ada")
    done = subprocess.run([sys.executable, "-m", "helpers", "verify", code], capture_output=True, text=True)
    assert done.returncode == 0 and "2 of 5: 03.1 03.2" in done.stdout and "this one" in done.stdout


@pytest.fixture(autouse=True)
def nothing_measured():
    MEASURED.clear()
    CHOSEN.clear()


@pytest.mark.parametrize("number", [number for number, one in QUESTIONS.items() if not callable(one.right)])
def test_a_question_of_understanding_is_answered_at_once(number, capsys):
    for choice, (_, sentence) in enumerate(QUESTIONS[number].choices, 1):
        predict(number, choice)
        said = capsys.readouterr().out
        assert sentence in said and ("Right." in said) == (choice == QUESTIONS[number].right)


VALUES = {  # what a run may measure, and the choice that is right then
    "00.dtype": [("float32", 1), ("bfloat16", 3)],
    "00.price": [("It is $4.99.", 1), ("I'm sorry, I don't know in 2 words.", 2), ("We ship standard <b>.", 3)],
    "01.size": [(0.125, 1), (0.31, 2), (0.8, 3)],
    "01.agree": [(0.0, 1), (1e-9, 2), (0.01, 3)],
    "01.falcon": [((0, 8, 8), 2), ((8, 8, 8), 1)],
    "02.kept": [(3, 2), (5, 1)],
    "03.memory": [({"weights": 5, "adapter": 1, "activations": 2}, 1), ({"weights": 1, "logits": 2}, 4)],
    "03.apart": [(1e-7, 1), (0.01, 2)],
    "03.five": [([3.0, 1.0], 2), ([3.0, 3.0], 1), ([3.0, 4.0], 3)],
    "03.before": [(0.0, 1), (0.3, 2)],
    "03.fresh": [(True, 1), (False, 2)],
    "04.stops": [((0, 3), 2), ((3, 3), 3)],
    "04.seeds": [(3, 2), (1, 1)],
    "04.flat": [({0.5: [0.9], 1.0: [0.5], 2.0: [0.2]}, 3)],
    "04.diverge": [(1, 1), (5, 2), (-1, 3), (30, 3)],
    "05.facts": [({"plain base": 0.0, "RAG": 0.5, "fine-tuned": 0.8}, 3), ({"RAG": 0.5, "fine-tuned": 0.4}, 2)],
    "05.cheapest": [({"prompt": 90, "RAG": 120, "fine-tuned": 12}, 3)],
    "05.search": [({"bm25": 0.5, "known questions": 0.9}, 4)],
    "05.lost": [((9, 2), 1), ((1, 5), 2)],
    "05.change": [((2, 9), 2), ((9, 2), 1)],
    "05.uses": [((20, 21), 2), ((20, 40), 1)],
    "06.adapter": [(0.2, 1), (9.0, 2), (300.0, 3)],
    "06.eight": [((3, 3), 1), ((2, 3), 2), ((0, 3), 3)],
    "06.curves": [(1e-7, 1), (0.01, 2), (0.4, 3)],
    "07.most": [({"learning rate": 0.8, "rank": 0.3, "layers": 0.3}, 1), ({"learning rate": 0.1, "rank": 0.3}, 2)],
    "07.rank": [((0.18, 0.36), 3), ((-0.1, 0.1), 2), ((-0.3, -0.1), 1)],
    "07.full": [((-0.6, -0.1), 3), ((-0.3, 0.5), 2), ((0.1, 0.4), 1)],
    "07.sweep": [((2e-5, (2e-5, 1e-3, 3e-3)), 1), ((1e-3, (2e-5, 1e-3, 3e-3)), 2), ((3e-3, (2e-5, 1e-3, 3e-3)), 3)],
}


def test_every_measured_question_has_values_here():
    assert list(VALUES) == [number for number, one in QUESTIONS.items() if callable(one.right)]


@pytest.mark.parametrize("number", VALUES)
def test_a_measured_question_is_right_by_what_the_run_measured(number, capsys):
    for value, wanted in VALUES[number]:
        MEASURED.clear()
        predict(number, wanted)
        assert "noted" in capsys.readouterr().out
        revealed(number, value)
        assert "Right." in capsys.readouterr().out
        assert read_progress()["predictions"][number]["right"] is True
        predict(number, wanted % len(QUESTIONS[number].choices) + 1)
        assert "Not so." in capsys.readouterr().out


KEPT = {"float", "bfloat", "RAG", "GiB", "MiB", "LoRA", "chrF", "logits", "known", "questions"}  # also in Chinese


@pytest.mark.parametrize("number", [number for number in VALUES if number != "00.price"])
def test_what_was_measured_is_told_in_chinese_without_an_english_word(number, capsys, monkeypatch):
    """But for 00.price, which repeats what the model said."""
    monkeypatch.setenv("FT_LANGUAGE", "zh_CN")
    for value, _ in VALUES[number]:
        MEASURED.clear()
        revealed(number, value)
        measured = re.findall("实测：(.*?)。那就是", capsys.readouterr().out)
        assert measured and set(re.findall("[A-Za-z]{3,}", measured[0])) <= KEPT, measured


def test_a_question_that_nobody_answered_is_told_with_the_right_choice(capsys):
    revealed("01.falcon", (0, 8, 8))
    assert "choice 2: none, then all. Nothing was predicted." in capsys.readouterr().out
    revealed("06.eight", None)
    assert "did not measure" in capsys.readouterr().out


def test_the_widgets_have_labels_and_announce_the_reply():
    quiz = Quiz("02.end")
    assert quiz.radio.value is None and quiz.radio.description and quiz.button.description == "Answer"
    quiz.button.click()
    assert "Choose one first" in quiz.status.value
    quiz.radio.value = 2
    quiz.button.click()
    assert 'role="alert"' in quiz.status.value and "Right." in quiz.status.value
    assert "color" not in quiz.status.value + quiz.text.value
