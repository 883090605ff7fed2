"""A training on GPUs that are not here: memory, time and cost from a model's configuration. Loads no weights."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from helpers.machine.language import listed, phrase, tr
from helpers.machine.memory import (
    FALCON_7B,
    GIB,
    NF4_BYTES,
    SAFE,
    Shape,
    cache_bytes,
    forecast,
    shape_in,
    shape_of,
    weight_bytes,
)
from helpers.machine.pins import is_hub_name, pinned, split_name
from helpers.machine.tables import Table
from helpers.models.source import ModelError, load_config
from helpers.settings import Settings

# As their configurations on the Hub have it, so that a plan needs no network.
KNOWN = {
    "tiiuae/falcon-7b": FALCON_7B,
    "tiiuae/falcon-40b": Shape(8192, 32768, 60, 128, 8, 64, 65024, gated=False, parallel=True),
    "meta-llama/Meta-Llama-3-8B": Shape(4096, 14336, 32, 32, 8, 128, 128256, tied=False),
    "meta-llama/Meta-Llama-3-70B": Shape(8192, 28672, 80, 64, 8, 128, 128256, tied=False),
}
# Products a second that this project reached on one H100 (benchmarks/results/gpu.json): parallel is Falcon's kind.
REACHED = {"parallel": 390e12, "gated": 320e12}
FLOAT8 = 1.08  # times as fast as bf16, both eager in one call (benchmarks/results/fp8-embedded.json: 16 rows)
NAMES = {"none": "bf16", "nf4": "NF4", "fp8": "FP8"}
ANSWER = 2048  # tokens of question and answer, for the memory of answering
H100_PEAK = 989e12  # bfloat16 products a second, dense, by its data sheet
# What is left of a card's speed beside others: a step on two H100s of one host (benchmarks/results/many-gpus.json).
LEFT = {"one card": 1.0, "DDP": 0.91, "FSDP": 0.60}
WORDS = {"one card": phrase("one card"), "checkpointing": phrase("checkpointing")}  # in an option's name


class PlanError(ValueError):
    """A plan cannot be made; the message says what is missing."""


class Option(NamedTuple):
    """One way to train. gib: at the peak on each card. fits: within SAFE of it. tokens_per_second: of all cards."""

    name: str
    gib: float
    fits: bool
    tokens_per_second: float
    hours: float
    cost: float | None


def shape_for(model: str) -> Shape:
    """The shape of a known model, of a folder, or of a model of the Hub. Raises PlanError with what there is."""
    shape = KNOWN.get(model) or shape_in(Path(model).expanduser())
    if shape is not None:
        return shape
    try:
        name, wanted = split_name(model)
        commit = pinned(name, wanted or "main").value if is_hub_name(name) else ""
        return shape_of(load_config(Settings(model=name, revision=commit)))
    except (ModelError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise PlanError(
            tr(
                "no configuration of {model!r} ({first}). Known without a network: {names}; or name a folder.",
                model=model,
                first=first,
                names=listed(KNOWN),
            )
        ) from None


def plan(
    shape: Shape,
    settings: Settings,
    *,
    gpus: int,
    gpu_gib: float,
    tokens: float,
    price: float | None = None,
    peak: float = H100_PEAK,
) -> list[Option]:
    """The options, a list of Option: DDP and FSDP, each in bfloat16 and NF4, with and without checkpointing.

    FP8 beside them, without FSDP: it shards parameters, and these weights are none.

    settings: of one card, as `settings.resolve` makes them. tokens: to train on, all epochs together. price: of a card
    and hour. peak: bfloat16 products a second of the card, by its data sheet; the speed reached here is scaled by it.
    """
    options = []
    for way in ("DDP", "FSDP") if gpus > 1 else ("one card",):
        for quantization in ("none", "nf4", "fp8")[: 2 if way == "FSDP" else 3]:
            for again in (False, True):
                chosen = replace(
                    settings,
                    device="cuda",
                    dtype="bfloat16",
                    autocast="",
                    quantization=quantization,
                    gradient_checkpointing=again,
                )
                gib = peak_bytes(shape, chosen, gpus if way == "FSDP" else 1) / GIB
                speed = gpus * LEFT[way] * speed_of(shape, again) * peak / H100_PEAK
                speed *= FLOAT8 if quantization == "fp8" else 1
                hours = tokens / speed / 3600
                name = f"{way}, {NAMES[quantization]}{', checkpointing' if again else ''}"
                cost = None if price is None else hours * gpus * price
                options.append(Option(name, gib, gib <= SAFE * gpu_gib, speed, hours, cost))
    return options


def peak_bytes(shape: Shape, settings: Settings, shards: int) -> float:
    """Bytes at the peak on one card. Sharded over several, it also holds two whole layers while it works on them."""
    whole = forecast(shape, settings)
    total = whole.total_gib * GIB
    if shards == 1:
        return total
    layer = shape.body() / shape.layers * (NF4_BYTES if settings.quantization == "nf4" else 2)
    return total - (whole.weights + whole.adapter) * (1 - 1 / shards) + 2 * layer


def speed_of(shape: Shape, checkpointing: bool) -> float:
    """Tokens a second of one H100: products of the body forward, and backward without those of frozen weights."""
    passes = 6 if checkpointing else 4  # products a token and parameter: 2 forward, 2 backward, 2 made again
    return REACHED["parallel" if shape.parallel else "gated"] / (passes * shape.body())


def memory_of_answers(shape: Shape) -> str:
    """GiB that answering takes: the weights, and the static cache of one conversation, whose size is fixed before."""
    cache = cache_bytes(shape, ANSWER) / GIB
    weights = {NAMES[kind]: weight_bytes(shape, kind, 2, 2) / GIB for kind in ("nf4", "fp8", "none")}
    kinds = listed(tr("{gib:.1f} in {name}", gib=gib, name=name) for name, gib in weights.items())
    return tr(
        "Answering: GiB of weights {kinds}; and {cache:.2f} for keys and values of {tokens:,} tokens.",
        kinds=kinds,
        cache=cache,
        tokens=ANSWER,
    )


def options_table(options: list[Option], gpu_gib: float, shape: Shape | None = None) -> Table:
    """The options side by side, with what they assume. shape: for the memory of answering as well."""
    rows, notes = [], []
    for one in options:
        cost, fits = "-" if one.cost is None else f"{one.cost:,.2f}", tr("yes") if one.fits else tr("no")
        rows.append(
            (way_named(one.name), f"{one.gib:.1f}", fits, f"{one.tokens_per_second:,.0f}", f"{one.hours:.1f}", cost)
        )
    if not any(one.fits for one in options):
        least = min(one.gib for one in options)
        notes.append(
            tr(
                "Nothing fits into {gib:.0f} GiB: the least is {least:.1f} GiB a card. More cards, fewer rows.",
                gib=gpu_gib,
                least=least,
            )
        )
    fine = [one for one in options if one.fits]
    if fine:
        fastest = max(fine, key=lambda one: one.tokens_per_second)
        notes.append(tr("Fastest that fits: {name}.", name=way_named(fastest.name)))
    if any("FP8" in one.name for one in options):
        notes.append(
            tr("FP8: on cards of compute capability 8.9 or more (L4, RTX 40, H100), in as much memory as bf16.")
        )
    if shape is not None:
        notes.append(memory_of_answers(shape))
    notes.append(
        tr(
            "GiB of each card. Assumed: LoRA on every linear layer, {share:.0%} of a card filled, times as on one host "
            "with fast links between its cards, measured on two; several hosts wait longer.",
            share=SAFE,
        )
    )
    header = (tr("way of training"), "GiB", tr("fits"), tr("tokens/s"), tr("hours"), tr("cost"))
    return Table(header, rows, notes=notes)


def way_named(name: str) -> str:
    """An option's name in the reader's language; NF4, DDP and the like are called so in any."""
    return listed(tr(WORDS.get(part, part)) for part in name.split(", "))
