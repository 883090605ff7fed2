"""The study of settings as tables, sentences and pictures."""

import json

import pytest

from helpers.evaluate.study import LABELS, Study, read_study, study_alt, study_figure, study_table, verdict
from helpers.machine.paths import PROJECT
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
