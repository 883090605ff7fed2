"""Two lean copies of a small Llama: one of few bits guesses ahead, one in float32 judges. Knows no texts."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from helpers.generate.products import in_blocks, in_eight, in_four
from helpers.machine.hardware import Choice, cpu_has_bf16

AHEAD = 9  # tokens that are guessed before they are judged
SAME = 2e-3  # the judge's scores may differ from the model's by so much: the same sums in another order


def can_draft(model) -> Choice:
    """Whether guessing ahead helps this model here, and why."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    weight, config = base.get_input_embeddings().weight, base.config
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return Choice(False, "the model answers by itself: guessing ahead is for float32 weights on a CPU")
    if (
        config.model_type != "llama"
        or config.hidden_act != "silu"
        or not cpu_has_bf16()
        or not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu")
    ):
        return Choice(False, "the model answers by itself: guessing ahead needs a Llama and a CPU with bfloat16")
    if any(type(m).__name__ == "Linear4bit" for m in base.modules()):
        return Choice(False, "the model answers by itself: its weights are 4-bit")
    return Choice(True, "a 4-bit copy guesses tokens ahead, and float32 weights judge several in one pass")


def weights_key(model) -> tuple:
    """Changes when the adapter is switched on or off, or trained: lean copies are of one such state."""
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


class Lean:
    """A Llama's decoder for one sequence, without what makes it slow: products that share their input are one.

    dtype: of what runs through it, and of keys and values. product, head_product: lay a weight out, see products.py.
    """

    @torch.no_grad()
    def __init__(self, model, dtype: torch.dtype, product: Callable, head_product: Callable):
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        config, root = base.config, math.sqrt(base.config.hidden_size)
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = torch.tensor(math.sqrt(config.rms_norm_eps * config.hidden_size))
        self.dtype, self.rotary, self.layers = dtype, base.model.rotary_emb, []
        for layer in base.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            norms = [n.weight.detach() * root for n in (layer.input_layernorm, layer.post_attention_layernorm)]
            qkv = torch.cat([whole_weight(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj)])
            gate_up = torch.cat([whole_weight(m) for m in (mlp.gate_proj, mlp.up_proj)])
            weights = (qkv, whole_weight(attention.o_proj), gate_up, whole_weight(mlp.down_proj))
            self.layers.append((*norms, *[product(weight) for weight in weights]))
        self.embedding, self.norm = base.get_input_embeddings().weight.detach(), base.model.norm.weight.detach() * root
        self.head = head_product(whole_weight(base.get_output_embeddings()))
        self.length = 0

    @torch.no_grad()
    def start(self, longest: int) -> None:
        """Empties the cache and makes room for `longest` tokens."""
        shape = (len(self.layers), 2, self.kv_heads, longest, self.head_dim)
        self.cache, self.length, half = torch.zeros(shape, dtype=self.dtype), 0, self.head_dim // 2
        cos, sin = self.rotary(self.embedding[:1][None], torch.arange(longest)[None])
        swap = torch.zeros(self.head_dim, self.head_dim)  # x @ swap is (-second half, first half) of x
        swap[range(half, 2 * half), range(half)] = -1
        swap[range(half), range(half, 2 * half)] = 1
        self.turns = torch.eye(self.head_dim) * cos[0, :, None] + swap * sin[0, :, None]  # a matrix for each position

    @torch.no_grad()
    def read(self, keys_and_values: torch.Tensor, known: int, length: int) -> None:
        """Takes tokens known..length of keys and values (layers, 2, kv_heads, tokens, head_dim); forgets later ones."""
        self.cache[..., known:length, :] = keys_and_values[..., known:length, :]
        self.length = length

    @torch.no_grad()
    def scores(self, tokens: list[int]) -> torch.Tensor:
        """Scores (tokens, vocab_size) of what follows each of these tokens, which are added to the cache."""
        rows, before = len(tokens), self.length
        self.length = after = before + rows
        hidden = self.embedding[torch.tensor(tokens)]
        mask = torch.full((rows, after), -math.inf, dtype=self.dtype).triu(before + 1) if rows > 1 else None
        places = self.cache[:, :, :, before:after].transpose(2, 3).unbind()
        seen, turns = self.cache[:, :, None, :, :after].unbind(), self.turns[before:after]
        for layer, place, known in zip(self.layers, places, seen, strict=True):
            before_attention, before_mlp, qkv, out, gate_up, down = layer
            heads = qkv(self.normed(hidden, before_attention)).view(rows, -1, self.head_dim)
            turned = torch.bmm(heads[:, : self.heads + self.kv_heads].float(), turns).to(self.dtype)
            place[0].copy_(turned[:, self.heads :])
            place[1].copy_(heads[:, self.heads + self.kv_heads :])
            query = turned[None, :, : self.heads].transpose(1, 2)
            mixed = F.scaled_dot_product_attention(query, known[0], known[1], attn_mask=mask, enable_gqa=True)
            hidden += out(mixed[0].transpose(0, 1).reshape(rows, -1))
            gate, up = gate_up(self.normed(hidden, before_mlp)).chunk(2, dim=-1)
            hidden += down(F.silu(gate).mul_(up))
        return self.head(self.normed(hidden, self.norm)).float()

    def normed(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMSNorm of hidden (rows, hidden_size); `weight` has the root of hidden_size in it, `eps` too."""
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return (hidden / torch.hypot(length, self.eps)).mul_(weight).to(self.dtype)


class Ahead:
    """A draft that guesses and a judge that decides, both of the model as it is now.

    The judge has the model's float32 weights, with the adapter's product added, and does the same sums in another
    order. Source of the idea: speculative decoding, arXiv:2211.17192; here a guess must be the very token.
    """

    def __init__(self, model):
        self.judge = Lean(model, torch.float32, lambda w: in_blocks(w, AHEAD + 1), lambda w: in_blocks(w, AHEAD + 1))
        self.draft = Lean(model, torch.bfloat16, in_four, in_eight)

    def start(self, prompt: list[int], cache, scores: torch.Tensor, longest: int) -> bool:
        """Begins an answer after the prompt, whose cache and scores (vocab_size,) the model has made.

        False if the judge's scores are not the model's: then this model has something that Lean does not know.
        """
        for side in (self.judge, self.draft):
            side.start(longest)
        known = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        self.judge.read(torch.cat(known).unflatten(0, (-1, 2)), 0, len(prompt))
        last = prompt[-AHEAD - 1 :]
        self.judge.length -= len(last)
        own = self.judge.scores(last)[-1]
        self.draft.read(self.judge.cache, 0, len(prompt))
        self.kept = len(prompt)
        return bool((own - scores).abs().max() < SAME)

    def guess(self, token: int, choose: Callable[[torch.Tensor, list[int]], int], most: int, ended) -> list[int]:
        """Up to `most` tokens that the draft expects after `token`; choose(scores, guesses before) picks each."""
        guesses = []
        while len(guesses) < most and not ended(token):
            token = choose(self.draft.scores([token])[0], guesses)
            guesses.append(token)
        return guesses

    def keep(self, length: int) -> None:
        """Forgets what was judged behind so many tokens; the draft takes the judge's keys and values of the others."""
        self.judge.length = length
        self.draft.read(self.judge.cache, self.kept, length)
        self.kept = length
