"""The study of settings as tables, sentences and pictures."""

import itertools
import json
import re

import pytest

from helpers.evaluate.study import (
    LABELS,
    Study,
    interval_between,
    read_study,
    study_alt,
    study_figure,
    study_table,
    verdict,
)
from helpers.machine.paths import PROJECT
from helpers.project import study_page as study_page_module
from helpers.reasons import REASONS
from helpers.seeds import over_seeds


def study(**facts):
    values = {name: {figure: list(row) for figure in LABELS} for name, row in facts.items()}
    return Study(values, "a CPU", "2026-01-01", {}, {name: list(range(len(row))) for name, row in facts.items()})


def test_a_difference_within_noise_is_said_to_be_such():
    made = study(a=[0.80, 0.82, 0.78], b=[0.81, 0.80, 0.80], c=[0.50, 0.51, 0.49])
    assert "Within noise" in verdict(made, "a", "b")
    assert "a is better: the difference is -3" in verdict(made, "a", "c")
    assert "c is better" in verdict(made, "a", "c", "nll"), "less is better there"


def test_variants_are_compared_seed_by_seed():
    made = study(a=[0.1, 0.5, 0.9], b=[0.55, 0.95])
    made.seeds["b"][:] = [1, 2]  # its first one is missing
    assert "b is better: the difference is +5 points to +5 points" in verdict(made, "a", "b")


def test_the_table_has_means_and_an_interval_and_says_where_it_was_measured():
    table = study_table(study(a=[0.8, 0.82, 0.78], base=[0.1]), ["a", "base"], ["fact_accuracy", "nll"])
    assert table.rows[0][:4] == ["a", "3", "80%", "0.800"] and table.rows[1][-1] == "-"
    assert "Measured 2026-01-01 on a CPU" in str(table)


def test_the_figure_has_a_dot_for_each_seed_and_its_text_the_means():
    made = study(a=[0.8, 0.82, 0.78], b=[0.5, 0.5, 0.5])
    (axis,) = study_figure(made, ["a", "b"]).axes
    assert [len(line.get_xdata()) for line in axis.lines] == [3, 1, 3, 1]
    assert study_alt(made, ["a", "b"]) == "facts right: a 80%; b 50%."


def test_a_file_that_is_no_study_is_refused(tmp_path):
    for content in ("{}", "{", json.dumps({"summary": 3, "machine": {}})):
        (tmp_path / "odd.json").write_text(content)
        with pytest.raises(ValueError, match=r"odd\.json holds no study"):
            read_study(tmp_path / "odd.json")


def test_the_interval_is_that_of_student():
    assert over_seeds([1.0, 2.0, 3.0]) == (pytest.approx(2 - 2.484, abs=1e-3), pytest.approx(2 + 2.484, abs=1e-3))


def test_the_page_has_the_study_s_figures():
    """docs/settings.md is cited; what stands there must be what was measured."""
    page, made = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8"), read_study()
    assert f"Measured {made.date} on {made.machine}" in page
    for name in made.values:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
        assert f"| {made.mean(name):.1%} |" in row and row.endswith(f"| {made.mean(name, 'text_nll'):.2f} |")


INTERVAL = re.compile(r"[+-]\d+(?:\.\d+)?(?: points)? to [+-]\d+(?:\.\d+)?(?: points)?")


@pytest.fixture(scope="module")
def intervals():
    """Every interval that the study has, between any two of its variants."""
    made = read_study()
    pairs = itertools.permutations([name for name in made.values if name != "base"], 2)
    said = (verdict(made, one, other, figure) for one, other in pairs for figure in LABELS)
    return {found for sentence in said for found in INTERVAL.findall(sentence)}


def test_every_interval_on_the_page_is_the_study_s(intervals):
    page = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    of_seeds = page[page.index("Seed by seed, all layers") :]  # held by the test of the upper half
    known = intervals | set(INTERVAL.findall(of_seeds.replace("\n", " "))[:2])
    short = page[page.index("In short") : page.index("One training of 76")].replace("\n  ", " ")
    assert len(INTERVAL.findall(short)) >= 12 and set(INTERVAL.findall(short)) <= known
    assert set(INTERVAL.findall(page)) <= known


@pytest.mark.parametrize(
    ("name", "one", "other", "figure"),
    [
        ("per_device_train_batch_size", "rows-32", "profile", "fact_accuracy"),
        ("num_train_epochs", "profile", "epochs-2.5", "fact_accuracy"),
        ("r", "rank-4", "profile", "fact_accuracy"),
        ("target_modules", "attention", "profile", "fact_accuracy"),
        ("use_dora", "profile", "dora", "fact_accuracy"),
        ("init_lora_weights", "profile", "pissa", "text_nll"),
    ],
)
def test_a_reason_that_cites_the_study_has_its_interval(name, one, other, figure):
    """It said that 64 forgot more, which is noise beside 32, and "in the same time", which was not measured."""
    low, high = interval_between(read_study(), one, other, figure)
    form = "{:.2f} to {:.2f}" if figure == "text_nll" else "{:.0f} to {:.0f} points"
    scale = 1 if figure == "text_nll" else 100
    said = REASONS[name].replace("+", "")
    assert form.format(scale * low, scale * high) in said and "docs/settings.md" in said


def test_the_command_makes_the_page_s_sentences_anew(monkeypatch, tmp_path):
    page = tmp_path / "settings.md"
    page.write_text("# A\n- facts right: profile 1%, rank-4 2%. rank-4 is better, they say.\nAnother line: as it is.\n")
    monkeypatch.setattr(study_page_module, "PAGE", page)
    monkeypatch.setenv("FT_LANGUAGE", "zh_CN")
    (made,) = study_page_module.study_page().values()
    monkeypatch.setenv("FT_LANGUAGE", "en")
    assert made == f"# A\n- {verdict(read_study(), 'profile', 'rank-4')}\nAnother line: as it is.\n"


def test_the_page_has_what_the_upper_half_of_the_layers_saves():
    page = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    runs = [
        json.loads((PROJECT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("laptop-seeds", "laptop-seeds-all-layers")
    ]
    for made, label in zip(runs, ("upper half, r=32, rate 3e-3", "all layers, r=16, rate 2e-3"), strict=True):
        facts, nll = (made["summary"][figure]["tuned"]["mean"] for figure in ("fact_accuracy", "nll"))
        assert f"| {label} | {facts:.1%} | {nll:.3f} | {made['summary']['training_seconds']['mean']:.1f} |" in page
    upper, every = (made["runs"] for made in runs)
    ratios = [two["seconds"] / one["seconds"] for one, two in zip(upper, every, strict=True)]
    low, high = over_seeds(ratios)
    assert f"1.43 times as long (95 % interval {low:.2f} to {high:.2f})" in page
    gaps = [
        one["tuned"]["fact_accuracy"] - two["tuned"]["fact_accuracy"] for one, two in zip(upper, every, strict=True)
    ]
    low, high = over_seeds(gaps)
    assert low < 0 < high and f"by {100 * low:+.0f} to {100 * high:+.0f} points" in page
