"""Speculative decoding of a small Llama: a 4-bit draft model proposes, a float32 target verifies. Knows no texts."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from helpers.adapted import adapter_is_on, base_of, weight_with_adapter
from helpers.generate.products import in_blocks, in_eight, in_four
from helpers.generate.stopping import Stopped
from helpers.machine.hardware import Choice, cpu_has_bf16
from helpers.machine.language import tr

DRAFT_TOKENS = 9  # tokens that the draft proposes before they are verified
TOLERANCE = 2e-3  # the target's logits may differ from the model's by so much: the same sums in another order


def can_draft(model: Any) -> Choice:
    """Whether speculative decoding helps this model here, and why."""
    base = base_of(model)
    weight, config = base.get_input_embeddings().weight, base.config
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return Choice(False, tr("the model answers by itself: speculative decoding is for float32 weights on a CPU"))
    if config.model_type != "llama" or config.hidden_act != "silu" or not cpu_has_bf16():
        return Choice(
            False, tr("the model answers by itself: speculative decoding needs a Llama and a CPU with bfloat16")
        )
    if not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
        return Choice(False, tr("the model answers by itself: this PyTorch has no 4-bit product for a CPU"))
    if any(type(m).__name__ == "Linear4bit" for m in base.modules()):
        return Choice(False, tr("the model answers by itself: its weights are 4-bit"))
    return Choice(True, tr("a 4-bit draft proposes tokens, and float32 weights verify several in one pass"))


def weights_key(model: torch.nn.Module) -> tuple:
    """Changes when the adapter is switched on or off, or trained: lean copies are of one such state.

    Upstream: torch's private Tensor._version does not count the steps of a fused optimizer, so the weights are summed,
    in a few milliseconds. Breaks: nothing; once it counts them, it can be read instead.
    Drift: test_upstream_behaviour.py::test_a_fused_optimizer_still_does_not_count_its_steps
    """
    active = adapter_is_on(model)
    return (active, *(float(p.detach().sum()) for n, p in model.named_parameters() if active and "lora_" in n))


class LeanLlama:
    """A Llama's decoder for one sequence, without what makes it slow: products that share their input are one.

    dtype: of what runs through it, and of keys and values. product, head_product: lay a weight out, see products.py,
    which takes seconds for all of them: raises Stopped between two layers once `stopped()`.
    """

    @torch.no_grad()
    def __init__(
        self, model: Any, dtype: torch.dtype, product: Callable, head_product: Callable, stopped: Callable[[], bool]
    ):
        base = base_of(model)
        config, root = base.config, math.sqrt(base.config.hidden_size)
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = torch.tensor(math.sqrt(config.rms_norm_eps * config.hidden_size))
        self.dtype, self.rotary, self.layers = dtype, base.model.rotary_emb, []
        for layer in base.model.layers:
            if stopped():
                raise Stopped
            attention, mlp = layer.self_attn, layer.mlp
            norms = [n.weight.detach() * root for n in (layer.input_layernorm, layer.post_attention_layernorm)]
            qkv = torch.cat([weight_with_adapter(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj)])
            gate_up = torch.cat([weight_with_adapter(m) for m in (mlp.gate_proj, mlp.up_proj)])
            weights = (qkv, weight_with_adapter(attention.o_proj), gate_up, weight_with_adapter(mlp.down_proj))
            self.layers.append((*norms, *[product(weight) for weight in weights]))
        self.embedding, self.norm = base.get_input_embeddings().weight.detach(), base.model.norm.weight.detach() * root
        self.head = head_product(weight_with_adapter(base.get_output_embeddings()))
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
        self.turns = (
            torch.eye(self.head_dim) * cos[0, :, None] + swap * sin[0, :, None]
        )  # rotary embedding, a matrix for each position

    @torch.no_grad()
    def read(self, keys_and_values: torch.Tensor, known: int, length: int) -> None:
        """Takes tokens known..length of keys and values (layers, 2, kv_heads, tokens, head_dim); forgets later ones."""
        self.cache[..., known:length, :] = keys_and_values[..., known:length, :]
        self.length = length

    @torch.no_grad()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        """Logits (tokens, vocab_size) of what follows each of these tokens, which are added to the cache."""
        rows, before = len(tokens), self.length
        self.length = after = before + rows
        hidden = self.embedding[torch.tensor(tokens)]
        mask = torch.full((rows, after), -math.inf, dtype=self.dtype).triu(before + 1) if rows > 1 else None
        slots = self.cache[:, :, :, before:after].transpose(2, 3).unbind()
        seen, turns = self.cache[:, :, None, :, :after].unbind(), self.turns[before:after]
        for layer, slot, known in zip(self.layers, slots, seen, strict=True):
            before_attention, before_mlp, qkv, out, gate_up, down = layer
            heads = qkv(self.normed(hidden, before_attention)).view(rows, -1, self.head_dim)
            turned = torch.bmm(heads[:, : self.heads + self.kv_heads].float(), turns).to(self.dtype)
            slot[0].copy_(turned[:, self.heads :])
            slot[1].copy_(heads[:, self.heads + self.kv_heads :])
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


class Speculation:
    """A draft model that proposes tokens and a target that verifies them, both of the model as it is now.

    The target has the model's float32 weights, with the adapter's product added, and does the same sums in another
    order. Source: speculative decoding, https://arxiv.org/abs/2211.17192; here a proposed token is kept only if it is
    the very token that the target chooses.
    """

    def __init__(self, model: Any, stopped: Callable[[], bool] = lambda: False):
        blocks = lambda weight: in_blocks(weight, DRAFT_TOKENS + 1)
        self.target = LeanLlama(model, torch.float32, blocks, blocks, stopped)
        self.draft = LeanLlama(model, torch.bfloat16, in_four, in_eight, stopped)

    def start(self, prompt: list[int], cache: Any, logits: torch.Tensor, longest: int) -> bool:
        """Begins an answer after the prompt, whose cache and logits (vocab_size,) the model has made.

        False if the target's logits are not the model's: then this model has something that LeanLlama does not know.
        """
        for side in (self.target, self.draft):
            side.start(longest)
        known = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        self.target.read(torch.cat(known).unflatten(0, (-1, 2)), 0, len(prompt))
        last = prompt[-DRAFT_TOKENS - 1 :]
        self.target.length -= len(last)
        own = self.target.logits(last)[-1]
        self.draft.read(self.target.cache, 0, len(prompt) - 1)
        self.draft.logits(prompt[-1:])  # fails now, and not in the middle of an answer, where an operator is missing
        self.draft.read(self.target.cache, 0, len(prompt))
        self.kept = len(prompt)
        return bool((own - logits).abs().max() < TOLERANCE)

    def propose(
        self, token: int, choose: Callable[[torch.Tensor, list[int]], int], most: int, ended: Callable[[int], bool]
    ) -> list[int]:
        """Up to `most` tokens that the draft expects after `token`; choose(logits, proposed before) picks each."""
        proposed: list[int] = []
        while len(proposed) < most and not ended(token):
            token = choose(self.draft.logits([token])[0], proposed)
            proposed.append(token)
        return proposed

    def keep(self, length: int) -> None:
        """Forgets what was verified behind so many tokens; the draft takes the target's keys and values."""
        self.target.length = length
        self.draft.read(self.target.cache, self.kept, length)
        self.kept = length

    def park(self) -> tuple[torch.Tensor, int, int]:
        """(keys and values of the answer so far, how many tokens of them stay, the room): for `resume`."""
        cache = self.target.cache
        return cache[..., : self.target.length, :].clone(), self.kept, cache.shape[-2]

    def resume(self, known: torch.Tensor, kept: int, longest: int) -> None:
        """Goes on with an answer that was parked, whatever was made meanwhile."""
        for side in (self.target, self.draft):
            side.start(longest)
        self.target.read(known, 0, known.shape[-2])
        self.draft.read(known, 0, kept)
        self.kept = kept
