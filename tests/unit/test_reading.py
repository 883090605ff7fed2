import math
import random

import pytest

from helpers.watch.reading import read


def rows(losses, evaluations=(), norms=None):
    made = [{"step": i + 1, "loss": loss, "grad_norm": (norms or {}).get(i + 1, 1.0)} for i, loss in enumerate(losses)]
    return made + [{"step": step, "eval_loss": loss} for step, loss in evaluations]


def noisy(curve, noise=0.15):
    draw = random.Random(0)
    return [value + draw.gauss(0, noise) for value in curve]


FALLING = noisy([0.5 + 2.5 * math.exp(-i / 30) for i in range(120)])


@pytest.mark.parametrize(
    ("history", "kind", "words"),
    [
        (rows(FALLING[:5]), "early", "Too early"),
        (rows(FALLING), "falling", "falls"),
        (rows(FALLING, [(0, 3.1), (60, 1.0), (120, 0.6)]), "falling", "held-out rows: 3.10, now 0.60"),
        (rows(noisy([3.0] * 80)), "flat", "too low"),
        (rows(noisy([3.0 - 0.0005 * i for i in range(80)])), "flat", "too low"),
        (rows(noisy([3 - i / 40 for i in range(60)] + [1.5 + i / 10 for i in range(40)])), "diverging", "too high"),
        (rows(FALLING, [(30, 1.0), (60, 0.8), (90, 0.9), (120, 1.1)]), "overfitting", "since step 60"),
        (rows([*FALLING[:30], "nan"], norms={29: 80.0, 30: 90.0}), "broken", "since step 31; gradients grew"),
        (rows([*FALLING[:30], "nan"], norms={30: "inf"}), "broken", "gradients overflowed"),
        (rows([*FALLING[:30], "inf"]), "broken", "without anything to train on"),
        (rows(["nan"]), "broken", "since step 1"),
    ],
)
def test_a_curve_is_read(history, kind, words):
    found = read(history)
    assert found.kind == kind and words in found.sentence


def test_noise_alone_is_no_divergence_and_one_bad_evaluation_no_overfitting():
    for seed in range(20):
        draw = random.Random(seed)
        curve = [1.0 + 2 * math.exp(-i / 20) + draw.gauss(0, 0.3) for i in range(150)]
        assert read(rows(curve)).kind == "falling", seed
    assert read(rows(FALLING, [(30, 1.0), (60, 0.8), (90, 0.9)])).kind == "falling"


def test_a_loss_that_levels_off_is_not_called_flat():
    assert read(rows(noisy([max(0.5, 3 - i / 10) for i in range(200)]))).kind == "falling"
