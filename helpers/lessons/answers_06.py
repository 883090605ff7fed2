"""Notebook 06's exercises: a merge by hand, a merge into four bits, twice the batch, and how many cards."""

from collections.abc import Callable
from functools import cache
from typing import Any

from helpers.lessons.exercise import ALWAYS, Exercise, Hint

R, ALPHA = 2, 6.0


def matrices() -> tuple[Any, Any, Any]:
    """W (3, 4), A (2, 4) and B (3, 2), as in a linear layer of 4 inputs and 3 outputs."""
    import torch

    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(*shape, generator=generator) for shape in ((3, 4), (R, 4), (3, R)))  # type: ignore[return-value]


def merges_as(answer: Callable[..., Any], scale: float) -> bool:
    """Whether a function of (W, A, B, r, alpha) gives W + scale * B @ A."""
    import torch

    W, A, B = matrices()
    made = torch.as_tensor(answer(*matrices(), R, ALPHA)).float()  # it may write into what it gets
    return torch.allclose(made, W + scale * B @ A, atol=1e-5)


@cache
def least_cards() -> int:
    """The smallest number of cards of 24 GiB on which falcon-40b trains in some way."""
    from helpers.export import shape_for
    from helpers.export.plan import plan
    from helpers.settings import Settings

    shape = shape_for("tiiuae/falcon-40b")
    asked = Settings(per_device_train_batch_size=8, max_length=512, packing=True)
    fits = lambda gpus: any(one.fits for one in plan(shape, asked, gpus=gpus, gpu_gib=24, tokens=1e7))
    return next(gpus for gpus in range(1, 65) if fits(gpus))


def must_show(answer: list[Any]) -> float:
    """What a merge into 16 bits, or exactly, stays below: of what the adapter moves a hundredth gets lost there."""
    return max(0.005, 0.1 * float(answer[0]))


def curves_of(answer: dict[int, list[float]]) -> list[list[float]]:
    """The curves, that of fewer rows first."""
    return [list(answer[rows]) for rows in sorted(answer)]


EXERCISES = (
    Exercise(
        "06.1",
        Callable,
        lambda answer, given: merges_as(answer, ALPHA / R),
        (
            Hint("The scale lora_alpha / r is missing.", lambda answer, given: merges_as(answer, 1.0)),
            Hint(
                "The scale is not right: a larger r makes it smaller.",
                lambda answer, given: (
                    merges_as(answer, ALPHA) or merges_as(answer, ALPHA * R) or merges_as(answer, R / ALPHA)
                ),
            ),
            Hint("Mind the shapes: W is (out, in), A is (r, in), B is (out, r). Which product is (out, in)?", ALWAYS),
        ),
    ),
    Exercise(
        "06.2",
        int,
        lambda answer, given: answer == least_cards(),
        (
            Hint("On so few cards no way of training fits.", lambda answer, given: 1 <= answer < least_cards()),
            Hint("It fits, and on fewer cards as well.", lambda answer, given: answer > least_cards()),
            Hint("A number of cards is at least 1.", ALWAYS),
        ),
    ),
    Exercise(
        "06.3",
        (list, tuple),
        lambda answer, given: len(answer) == 2 and float(answer[0]) > 0 and float(answer[1]) > must_show(answer),
        (
            Hint(
                "Two shares are asked for: how far the adapter moves the logits, then how far the merge does.",
                lambda answer, given: len(answer) != 2,
            ),
            Hint(
                "A merge into 4 bits rounds again and must show: was the base in 16 or 32 bits?",
                lambda answer, given: 0 <= float(answer[1]) <= must_show(answer),
            ),
            Hint("A spread is not negative, and a trained adapter moves something: check the differences.", ALWAYS),
        ),
    ),
    Exercise(
        "06.4",
        dict,
        lambda answer, given: (
            len(answer) == 2
            and len({len(curve) for curve in curves_of(answer)}) == 1
            and abs(curves_of(answer)[0][0] - curves_of(answer)[1][0]) > 1e-4
        ),
        (
            Hint("Two curves are compared: one for each number of rows.", lambda answer, given: len(answer) != 2),
            Hint(
                "The curves have different numbers of steps.",
                lambda answer, given: len({len(curve) for curve in curves_of(answer)}) != 1,
            ),
            Hint("The two curves begin with the same loss: did the second read twice the rows?", ALWAYS),
        ),
    ),
)
