"""Forecast of a training's memory and time, before it starts; knows shapes, loads nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.machine.inits import takes_from_base
from helpers.machine.language import phrase, tr
from helpers.machine.meter import GIB
from helpers.machine.paths import json_in
from helpers.machine.tables import Table

if TYPE_CHECKING:
    from transformers import PretrainedConfig

EFFICIENT_TOKENS = 2048  # above, the block mask of "efficient" costs more than larger products save
SAFE = 0.9  # share of the free memory that a training may plan for
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight, its share of an 8-bit scale, and of that scale's scale
CPU_KEPT = 3 * GIB // 4  # measured: what oneDNN and the allocator keep for the lengths of batches that occur
LOGITS = {"cpu": 2**23, "cuda": 2**25}  # how many logits the output head may hold at a time


class Shape(NamedTuple):
    """What of a decoder decides its memory. Sizes are numbers of elements."""

    hidden_size: int
    intermediate_size: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    gated: bool = True  # gate and up in the MLP, as in Llama; Falcon has only up
    parallel: bool = False  # attention and MLP read the same norm, as in Falcon
    tied: bool = True  # the output head is the embedding

    def linears(self) -> list[tuple[int, int]]:
        """(in_features, out_features) of the linear layers of one decoder layer, as they are quantized and adapted."""
        hidden, mlp = self.hidden_size, self.intermediate_size
        query, kv = self.query_heads * self.head_dim, self.kv_heads * self.head_dim
        inputs = [(hidden, query + 2 * kv)] if self.parallel else [(hidden, query), (hidden, kv), (hidden, kv)]
        return [*inputs, (query, hidden), *[(hidden, mlp)] * (1 + self.gated), (mlp, hidden)]

    def body(self) -> int:
        """Parameters of all linear layers."""
        return self.layers * sum(i * o for i, o in self.linears())

    def lora(self, r: int, first: int = 0) -> int:
        """Parameters of an adapter of rank r on every linear layer of the decoder layers from `first` on."""
        return (self.layers - first) * r * sum(i + o for i, o in self.linears())


FALCON_7B = Shape(4544, 18176, 32, 71, 1, 64, 65024, gated=False, parallel=True)
SMOLLM2_135M = Shape(576, 1536, 30, 9, 3, 64, 49152)


LAYERS = ("all", "upper half")  # of the decoder, that an adapter can be on


def first_adapted(choice: str, layers: int) -> int:
    """The first decoder layer that has an adapter. choice: one of LAYERS; layers: how many the model has."""
    return layers // 2 if choice == "upper half" else 0


class Forecast(NamedTuple):
    """Bytes that a training needs at its peak, by what needs them."""

    weights: int
    adapter: int
    activations: int
    logits: int
    workspace: int
    baseline: int = 0

    @property
    def total_gib(self) -> float:
        """The peak in GiB: the output head and the backward pass never need their room at the same time."""
        fixed = self.weights + self.adapter + self.activations + self.baseline
        return (fixed + max(self.logits, self.workspace)) / GIB

    def table(self) -> Table:
        """A row for each component, in GiB, with what it is."""
        parts = [
            (tr("baseline"), self.baseline, tr("Python and its libraries, and what is loaded already")),
            (
                tr("weights"),
                self.weights,
                tr("of the base model, and their 16-bit copies under mixed precision on a CPU"),
            ),
            (tr("adapter"), self.adapter, tr("LoRA in float32 with AdamW's two averages")),
            (tr("activations"), self.activations, tr("what the backward pass needs of the largest batch")),
            (tr("logits"), self.logits, tr("of the output head, a piece at a time")),
            (tr("workspace"), self.workspace, tr("gradients, one unpacked weight; on a CPU what libraries keep")),
        ]
        rows = [(name, f"{size / GIB:.2f}", why) for name, size, why in parts]
        why = tr("the sum, with the larger of logits and workspace, not both")
        return Table((tr("what"), "GiB", tr("what it is")), [*rows, (tr("peak"), f"{self.total_gib:.2f}", why)])


def shape_of(config: PretrainedConfig) -> Shape:
    """The shape of a model from its transformers configuration. Raises ValueError for an unknown family."""
    if config.model_type == "falcon":
        heads = config.num_attention_heads
        kv = config.num_kv_heads if config.new_decoder_architecture else 1 if config.multi_query else heads
        mlp = getattr(config, "ffn_hidden_size", None) or 4 * config.hidden_size
        hidden = config.hidden_size
        return Shape(hidden, mlp, config.num_hidden_layers, heads, kv, hidden // heads, config.vocab_size, False, True)
    if config.model_type not in ("llama", "mistral", "qwen2", "qwen3"):
        raise ValueError(
            tr(
                "no forecast for models of type {model_type!r}: falcon, llama, mistral, qwen2, qwen3.",
                model_type=config.model_type,
            )
        )
    heads = config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    sizes = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    tied = bool(config.tie_word_embeddings)
    return Shape(*sizes, heads, config.num_key_value_heads or heads, dim, config.vocab_size, tied=tied)


def shape_in(folder: Path) -> Shape | None:
    """The shape of the model saved in a folder; None when it holds none, one of an unknown family or a damaged one."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        kind = json_in(folder / "config.json")["model_type"]
        return shape_of(AutoConfig.from_pretrained(folder, trust_remote_code=False)) if kind else None
    except (OSError, KeyError, ValueError, TypeError, AttributeError, ArithmeticError, StrictDataclassError):
        return None  # what is wrong with it is said where the model is loaded


def forecast(shape: Shape, settings: Any, lengths: list[int] | None = None, baseline: int = 0) -> Forecast:
    """What a training with these settings needs at its peak, in bytes.

    settings: helpers.settings.Settings. lengths: tokens of each row; without them, or packed, every row counts as
    max_length. baseline: bytes in use before the model is loaded; on a CPU the resident memory of the process.
    """
    rows = settings.per_device_train_batch_size
    longest = settings.max_length if settings.packing or not lengths else min(settings.max_length, max(lengths))
    tokens = longest * rows if settings.packing or not lengths else largest_batch(lengths, rows)
    width = 4 if settings.dtype == "float32" else 2
    products = 2 if settings.autocast else width  # bytes of an element that goes into a matrix product
    workspace = int(tokens * products * 2 * shape.intermediate_size) + (CPU_KEPT if settings.device == "cpu" else 0)
    if settings.quantization == "nf4":
        workspace += products * max(i * o for i, o in shape.linears())
    head = products * shape.vocab_size * shape.hidden_size if settings.autocast and width == 4 else 0
    first = first_adapted(settings.layers_to_transform, shape.layers)
    return Forecast(
        weights=weight_bytes(shape, settings.quantization, width, products) + head + kept_bytes(shape, settings, width),
        adapter=shape.lora(settings.r, first) * 12,  # its gradients come when activations are already being freed
        activations=activation_bytes(shape, settings, tokens, longest, width, products),
        logits=LOGITS[settings.device] * (products + 4 + products),
        workspace=workspace,
        baseline=baseline,
    )


def largest_batch(lengths: list[int], rows: int) -> int:
    """Tokens of the largest batch to expect when rows are drawn at random: three standard deviations above the mean."""
    mean, spread = fmean(lengths), pstdev(lengths)
    return int(min(rows * mean + 3 * rows**0.5 * spread, sum(sorted(lengths)[-rows:])))


def cache_bytes(shape: Shape, tokens: int, rows: int = 1, width: int = 2) -> int:
    """Bytes of a static cache: keys and values of every layer for so many tokens, reserved before the first one."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * tokens * rows * width


def weight_bytes(shape: Shape, quantization: str, width: int, products: int) -> int:
    """Bytes of the base model's weights; linear layers are kept a second time where products need another dtype.

    FP8 keeps them twice in 8 bits, rounded by rows and by columns: as many bytes as 16 bits.
    """
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tied else 2)
    if quantization == "nf4":
        return int(shape.body() * NF4_BYTES + embeddings * width)
    if quantization == "fp8":
        return int(shape.body() * 2 + embeddings * width)
    copies = products if products != width else 0
    return int(shape.body() * (width + copies) + embeddings * width)


def kept_bytes(shape: Shape, settings: Any, width: int) -> int:
    """Bytes of the base's own weights that are kept beside those of which the adapter took a part (PiSSA, OLoRA)."""
    adapted = shape.layers - first_adapted(settings.layers_to_transform, shape.layers)
    return adapted * shape.body() // shape.layers * width if takes_from_base(settings) else 0


def activation_bytes(shape: Shape, settings: Any, tokens: int, length: int, width: int, products: int) -> int:
    """Bytes that the forward pass leaves for the backward pass, over the layers that it goes back through."""
    stream = tokens * shape.hidden_size * (4 if settings.autocast else width)  # the residual stream, once
    layer = layer_bytes(shape, settings, tokens, length, width, products)
    if settings.gradient_checkpointing:
        return int(shape.layers * stream + layer)
    return int((shape.layers - first_adapted(settings.layers_to_transform, shape.layers)) * layer)


def layer_bytes(shape: Shape, settings: Any, tokens: int, length: int, width: int, products: int) -> int:
    """What one decoder layer keeps: inputs of norms, products and attention."""
    stream = 4 if settings.autocast else width
    hidden, mlp = shape.hidden_size, shape.intermediate_size
    query, kv = shape.query_heads * shape.head_dim, shape.kv_heads * shape.head_dim
    low = settings.r * len(shape.linears())
    if shape.parallel:  # input, norm, query_key_value, turned query and key, attention, MLP before and after GELU
        elements = (1 if not settings.autocast else 2) * hidden + (query + 2 * kv) + query + kv + query + 2 * mlp
        return tokens * (stream * hidden + products * (elements + low))
    norms = 2 * hidden if not settings.autocast else 5 * hidden  # a copy for each product under mixed precision
    elements = norms + query + 2 * kv + query + 4 * mlp
    scores = 0
    if settings.attention in ("eager", "rows"):  # the softmax in float32 and its 16-bit copy, keys for all heads
        scores = tokens * (shape.query_heads * min(length, 256) * (4 + products) + products * 2 * query)
    written_out = (
        tokens * 2 * hidden * 4 if settings.device == "cpu" else 0
    )  # the CPU's RMSNorm keeps its float32 steps
    return tokens * (2 * stream * hidden + products * (elements + low)) + scores + written_out


class Batch(NamedTuple):
    """How a step is divided: rows in a forward pass, passes in a step, and whether activations are made again."""

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    reason: str


def choose_batch(shape: Shape, settings: Any, free_gib: float, baseline: int = 0) -> Batch | None:
    """The fastest division of a step that fits into 90 % of the free memory; None when not even one row does.

    The rows of a step stay as they are. On a GPU large micro-batches without checkpointing are fastest, then large
    ones with it (benchmarks/results/gpu.json); on a CPU the micro-batch is only made smaller when it has to be.
    """
    rows = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    sizes = [size for size in (16, 8, 4, 2, 1) if rows % size == 0] if settings.device == "cuda" else []
    if settings.attention == "efficient":
        sizes = [size for size in sizes if size * settings.max_length <= EFFICIENT_TOKENS or size == 1]
    large, small = [size for size in sizes if size >= 8], [size for size in sizes if size < 8]
    order = [*((size, False) for size in large), *((size, True) for size in large)]
    order += [(size, again) for size in small for again in (False, True)]
    if settings.device == "cpu":
        wanted = settings.per_device_train_batch_size
        order = [(size, again) for again in (False, True) for size in range(wanted, 0, -1) if rows % size == 0]
    for size, again in order:
        divided = {"per_device_train_batch_size": size, "gradient_checkpointing": again}
        needed = forecast(shape, replace(settings, **divided), baseline=baseline).total_gib
        if needed <= SAFE * free_gib:
            reason = phrase(
                "takes up to {needed:.1f} of the {free_gib:.1f} GiB that are free", needed=needed, free_gib=free_gib
            )
            return Batch(size, rows // size, again, reason)
    return None
