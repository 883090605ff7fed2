"""A second, faster copy of a small model that guesses tokens ahead; the model itself judges them. Knows no texts."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from helpers.hardware import Choice, cpu_has_bf16

GROUP = 32  # numbers of a row that share a scale


def can_draft(model) -> Choice:
    """Whether a Draft of this model helps here, and why."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    weight = base.get_input_embeddings().weight
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return Choice(False, "the model answers by itself: guessing ahead is for float32 weights on a CPU")
    if (
        base.config.model_type != "llama"
        or not cpu_has_bf16()
        or not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu")
    ):
        return Choice(False, "the model answers by itself: guessing ahead needs a Llama and a CPU with bfloat16")
    if any(type(m).__name__ == "Linear4bit" for m in base.modules()):
        return Choice(False, "the model answers by itself: its weights are 4-bit")
    return Choice(True, "a 4-bit copy guesses tokens ahead, and the model judges several in one pass")


def weights_key(model) -> tuple:
    """Changes when the adapter is switched on or off, or trained: a Draft is of one such state."""
    adapted = [m for m in model.modules() if hasattr(m, "get_delta_weight")]
    active = bool(adapted) and not adapted[0].disable_adapters
    versions = [p._version for n, p in model.named_parameters() if "lora_" in n] if active else []
    return (active, *versions)


def whole_weight(linear) -> torch.Tensor:
    """A linear layer's weight (out, in), with the active adapter's product added."""
    if not hasattr(linear, "get_delta_weight"):
        return linear.weight.detach()
    weight = linear.base_layer.weight.detach()
    if linear.disable_adapters:
        return weight
    return weight + sum(linear.get_delta_weight(name).detach() for name in linear.active_adapters)


class Eight(NamedTuple):
    """A weight (out, in) in 8 bits with a scale for each row: a quarter of float32's bytes are read for a product."""

    rows: torch.Tensor  # int8 (out, in)
    scales: torch.Tensor  # bfloat16 (out,)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (1, in) times the weight, as bfloat16 (1, out)."""
        return torch._weight_int8pack_mm(hidden, self.rows, self.scales)


class Four(NamedTuple):
    """A weight (out, in) in 4 bits, with a scale and a middle for each GROUP of a row: an eighth of the bytes.

    The embedded model was stored so (GGUF Q4_1), in groups of the same size: its weights lose next to nothing.
    """

    rows: torch.Tensor  # as torch packs them
    scales: torch.Tensor  # bfloat16 (in / GROUP, out, 2)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (1, in) times the weight, as bfloat16 (1, out)."""
        return torch.ops.aten._weight_int4pack_mm_for_cpu(hidden.contiguous(), self.rows, GROUP, self.scales)


def in_eight(weight: torch.Tensor) -> Eight:
    """The weight with each row rounded to 255 steps."""
    scales = weight.abs().amax(dim=1).clamp(min=1e-8) / 127
    return Eight((weight / scales[:, None]).round().to(torch.int8), scales.to(torch.bfloat16))


def packed(weight: torch.Tensor) -> Four | Eight:
    """The weight with each group of a row rounded to 16 steps; in 8 bits where its shape does not allow that."""
    if weight.shape[0] % 16 or weight.shape[1] % GROUP:
        return in_eight(weight)
    groups = weight.unflatten(1, (-1, GROUP))  # (out, in / GROUP, GROUP)
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    step = ((high - low) / 15).clamp(min=1e-8)
    rows = ((groups - low[..., None]) / step[..., None]).round().clamp(0, 15).to(torch.int32).flatten(1)
    scales = torch.stack([step, low + 8 * step], dim=-1).transpose(0, 1)  # torch's kernel: (number - 8) * step + middle
    packed_rows = torch.ops.aten._convert_weight_to_int4pack_for_cpu(rows, 1)
    return Four(packed_rows, scales.contiguous().to(torch.bfloat16))


class Draft:
    """A Llama's decoder with 4-bit weights and an 8-bit head, for one sequence: a sixth of the bytes of a token's pass.

    Products that share their input are one. Keys and values of tokens that the model has judged are the model's own.
    Source of the idea: speculative decoding, arXiv:2211.17192; here a guess must be the very token, not a likely one.
    """

    @torch.no_grad()
    def __init__(self, model):
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        config = base.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps, self.rotary, self.layers = config.rms_norm_eps, base.model.rotary_emb, []
        for layer in base.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            qkv = torch.cat([whole_weight(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj)])
            gate_up = torch.cat([whole_weight(m) for m in (mlp.gate_proj, mlp.up_proj)])
            products = (qkv, whole_weight(attention.o_proj), gate_up, whole_weight(mlp.down_proj))
            norms = (layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach())
            self.layers.append((norms, [packed(weight) for weight in products]))
        self.embedding, self.norm = base.get_input_embeddings().weight.detach(), base.model.norm.weight.detach()
        self.head = in_eight(base.get_output_embeddings().weight.detach())
        self.length = 0

    @torch.no_grad()
    def start(self, longest: int) -> None:
        """Empties the cache and makes room for `longest` tokens."""
        shape = (len(self.layers), 2, self.kv_heads, longest, self.head_dim)
        self.cache, self.length = torch.zeros(shape, dtype=torch.bfloat16), 0
        cos, sin = self.rotary(self.embedding[:1][None], torch.arange(longest)[None])
        self.cos, self.sin = cos[0], sin[0]  # (longest, head_dim)

    @torch.no_grad()
    def read(self, cache, known: int, length: int) -> None:
        """Takes keys and values of tokens known..length from the model's own cache, and forgets what is behind them."""
        for place, layer in enumerate(cache.layers):
            self.cache[place, 0, :, known:length] = layer.keys[0, :, known:length]
            self.cache[place, 1, :, known:length] = layer.values[0, :, known:length]
        self.length = length

    @torch.no_grad()
    def step(self, token: int) -> torch.Tensor:
        """Scores (vocab_size,) of the token after this one, which is added to the cache."""
        hidden, half, place = F.embedding(torch.tensor([token]), self.embedding), torch.bfloat16, self.length
        self.length += 1
        for number, ((before, after), (qkv, out, gate_up, down)) in enumerate(self.layers):
            heads = qkv(F.rms_norm(hidden, hidden.shape[-1:], before, self.eps).to(half)).view(-1, self.head_dim)
            turned = self.turn(heads[: self.heads + self.kv_heads], place)
            self.cache[number, 0, :, place] = turned[self.heads :]
            self.cache[number, 1, :, place] = heads[self.heads + self.kv_heads :]
            keys, values = self.cache[number, :, None, :, : self.length]
            mixed = F.scaled_dot_product_attention(turned[None, : self.heads, None], keys, values, enable_gqa=True)
            hidden = hidden + out(mixed.reshape(1, -1))
            gate, up = gate_up(F.rms_norm(hidden, hidden.shape[-1:], after, self.eps).to(half)).chunk(2, dim=-1)
            hidden = hidden + down(F.silu(gate) * up)
        return self.head(F.rms_norm(hidden, hidden.shape[-1:], self.norm, self.eps).to(half))[0].float()

    def turn(self, heads: torch.Tensor, place: int) -> torch.Tensor:
        """Rotary position `place` on heads of shape (heads, head_dim)."""
        left, right = heads.float().chunk(2, dim=-1)
        turned = torch.cat([-right, left], dim=-1)
        return (heads * self.cos[place] + turned * self.sin[place]).to(torch.bfloat16)
