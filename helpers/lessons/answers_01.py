"""Notebook 01's exercises: the size of a 4-bit model, rounding by hand, levels of one's own, and a refusal."""

from collections.abc import Callable
from typing import Any

from helpers.lessons.exercise import ALWAYS, Exercise, Given, Hint, is_near

LINEAR, EMBEDDING = 6.63e9, 0.3e9  # Falcon-7B's parameters in linear layers, and in the embedding
CODES = LINEAR * 4 / 8 / 1e9  # gigabytes of the codes alone
NF4 = LINEAR * (4 + 8 / 64 + 32 / (64 * 256)) / 8 / 1e9
TABLE = EMBEDDING * 2 / 1e9


def blocks() -> Any:
    """Three blocks of 64 weights of different sizes; in one the largest by magnitude is negative. Shape (3, 64)."""
    import torch

    weights = torch.linspace(-1, 0.9, 192).reshape(64, 3).T.contiguous() * torch.tensor([[1.0], [0.02], [3.0]])
    return weights


def rounded(block: Any, levels: Any, scale: Any) -> Any:
    """A block on the nearest levels. levels: (16,); scale: what the block is divided by, and multiplied with again."""
    return levels[(block[:, None] / scale - levels).abs().argmin(dim=1)] * scale


def rounds_like(answer: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether two functions of (block, levels) give the same on three blocks."""
    import torch

    levels = torch.linspace(-1, 1, 16)
    made = [torch.as_tensor(answer(b, levels.clone())).float() for b in blocks()]  # it may write into what it gets
    return all(torch.allclose(one, other(b, levels), atol=1e-6) for one, b in zip(made, blocks(), strict=True))


def relative_error(values: Any, levels: Any) -> float:
    """The error of rounding values in [-1, 1] to the nearest level, relative to the values."""
    nearest = levels[(values[..., None] - levels).abs().argmin(dim=-1)]
    return float(((nearest - values).pow(2).sum() / values.pow(2).sum()).sqrt())


def beats_nf4(answer: Any, given: Given) -> bool:
    """Whether sixteen levels round the block better than NF4's."""
    import torch
    from bitsandbytes.functional import get_4bit_type

    own, block = torch.as_tensor(answer).float(), given["block"].cpu()
    scaled, nf4 = block / block.abs().max(), get_4bit_type("nf4", device="cpu")
    return own.numel() == 16 and relative_error(scaled, own) < 0.999 * relative_error(scaled, nf4)


def count_of(answer: Any) -> int:
    """How many levels there are; NaN, the mean of no weights, is none."""
    import torch

    return int(torch.as_tensor(answer).isfinite().sum())


def largest_level(answer: Any) -> float:
    """The largest level by magnitude."""
    import torch

    return float(torch.as_tensor(answer).float().abs().max())


def passed_over() -> str:
    """The end of what `load_model` says of layers that were not quantized, whatever model it was."""
    from helpers.models.load import not_quantized

    return not_quantized("", "|").rpartition("|")[2]


EXERCISES = (
    Exercise(
        "01.1",
        float,
        lambda answer, given: is_near(answer, NF4 + TABLE, 0.01),
        (
            Hint(
                "The embedding is not quantized: it has 16 bits a number. Is it in your sum?",
                lambda answer, given: is_near(answer, NF4) or is_near(answer, CODES),
            ),
            Hint(
                "A weight takes more than its code of 4 bits: what do the scales add? The text above has the figure.",
                lambda answer, given: is_near(answer, CODES + TABLE, 0.005),
            ),
            Hint("Bits, bytes, gigabytes: 8 bits are a byte, and 1e9 bytes a gigabyte. Check each factor.", ALWAYS),
        ),
    ),
    Exercise(
        "01.2",
        Callable,
        lambda answer, given: rounds_like(answer, lambda b, levels: rounded(b, levels, b.abs().max())),
        (
            Hint(
                "The result lies between -1 and 1: undo the division by the scale.",
                lambda answer, given: rounds_like(
                    answer, lambda b, levels: rounded(b, levels, b.abs().max()) / b.abs().max()
                ),
            ),
            Hint(
                "The scale must be the largest by magnitude; in one of the blocks tried here that weight is negative.",
                lambda answer, given: rounds_like(answer, lambda b, levels: rounded(b, levels, b.max())),
            ),
            Hint("For each weight: which of the sixteen levels is nearest? Look at `codes` above.", ALWAYS),
        ),
    ),
    Exercise(
        "01.3",
        object,
        beats_nf4,
        (
            Hint(
                "Four bits are sixteen values: count yours. NaN is none: it is the mean of no weights.",
                lambda answer, given: count_of(answer) != 16,
            ),
            Hint(
                "These levels are in the weights' own units. Levels apply to a block that was divided by its absmax.",
                lambda answer, given: largest_level(answer) < 0.5,
            ),
            Hint(
                "On this block these are no better than NF4's. Try moving each level to the mean of its weights.",
                ALWAYS,
            ),
        ),
    ),
    Exercise(
        "01.4",
        object,
        lambda answer, given: isinstance(answer, (RuntimeError, ValueError, str)) and passed_over() in str(answer),
        (
            Hint(
                "That is a loaded model: the correction was still active, or it was loaded without `load_model`.",
                lambda answer, given: hasattr(answer, "report") or hasattr(answer, "parameters"),
            ),
            Hint(
                "That is a class. Catch the error with `except ... as` and give the error or its text.",
                lambda answer, given: isinstance(answer, type),
            ),
            Hint("What `load_model` says names the number of 4-bit layers. Catch it and give it here.", ALWAYS),
        ),
    ),
)
