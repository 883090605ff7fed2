"""Families of decoders, each built tiny in code with a tokenizer of its own kind: random weights, real classes."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from helpers.models.tiny import seeded

PAD, END, BEGIN, USER, ANSWER, TURN = "<pad>", "<end>", "<begin>", "<user>", "<answer>", "<turn>"
# A form of turns that any conversation fits, one that takes the two sides in turn only, and one that thinks.
FREE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<turn>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>\n' }}{% endif %}"
)
STRICT = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<user>' if message['role'] == 'user' else '<answer>' }}{{ message['content'] | trim }}{{ '<turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<answer>' }}{% endif %}"
)
THINKS = (
    "{% for message in messages %}{{ '<user>' if message['role'] == 'user' else '<answer>' }}"
    "{% if message['role'] == 'assistant' and loop.last %}"
    "{{ '<think>' + (message['reasoning_content'] or '') + '</think>' }}"
    "{% endif %}{{ message['content'] + '<turn>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<answer>' }}{% endif %}"
)


class Family(NamedTuple):
    """name: of the row. kind: transformers' class without ForCausalLM. options: of the configuration.

    begin: the tokenizer puts a token before every text. template: the model's own, or "". ends: the generation config
    lists the turn's end beside the end token.
    """

    name: str
    kind: str
    options: dict
    begin: bool = False
    template: str = ""
    ends: bool = False


SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SIZE, "intermediate_size": 96, "num_key_value_heads": 2}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 64},
}
GEMMA = {**GROUPED, "head_dim": 16, "sliding_window": 512, "query_pre_attn_scalar": 16}
FAMILIES = [
    Family("Llama, tied head", "Llama", {**GROUPED, "tie_word_embeddings": True}),
    Family(
        "Llama 3, own head", "Llama", {**GROUPED, "rope_parameters": LLAMA3}, begin=True, template=STRICT, ends=True
    ),
    Family("Mistral with a window", "Mistral", {**GROUPED, "sliding_window": 512}, begin=True, template=STRICT),
    Family("Qwen2", "Qwen2", {**GROUPED, "tie_word_embeddings": True}, template=FREE),
    Family("Qwen3", "Qwen3", {**GROUPED, "head_dim": 16}, template=THINKS, ends=True),
    Family("Gemma 2", "Gemma2", {**GEMMA, "final_logit_softcapping": 2.0}, begin=True, template=STRICT, ends=True),
    Family("Gemma 3", "Gemma3", GEMMA, begin=True, template=STRICT, ends=True),
    Family("Phi-3", "Phi3", {**GROUPED, "pad_token_id": 0}, template=FREE, ends=True),
    Family("Phi", "Phi", {**SIZE, "intermediate_size": 96}),
    Family("SmolLM3", "SmolLM3", {**GROUPED, "pad_token_id": 0}, template=FREE),
    Family("OLMo 2", "Olmo2", GROUPED),
    Family("Granite", "Granite", {**GROUPED, "logits_scaling": 4.0, "embedding_multiplier": 6.0}, template=FREE),
    Family("Cohere", "Cohere", {**GROUPED, "logit_scale": 0.25}, begin=True, template=STRICT),
    Family("GPT-2", "GPT2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024}),
    Family("Falcon 7B's form", "Falcon", {**SIZE, "multi_query": True, "parallel_attn": True, "bias": False}),
    Family("Falcon 40B's form", "Falcon", {**SIZE, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": False}),
    # Positions that are learned, and begin at 2; three projections in one, and a head of another name; a head with a
    # bias; pairs of a part of each head turned.
    Family("OPT", "OPT", {**SIZE, "ffn_dim": 96, "word_embed_proj_dim": 64}, begin=True),
    Family("GPT-NeoX", "GPTNeoX", {**SIZE, "intermediate_size": 96}),
    Family("GPT-J", "GPTJ", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024, "rotary_dim": 8}),
    Family("GLM 4", "Glm4", {**GROUPED, "head_dim": 16}, template=FREE, ends=True),
]


def build_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """Bytes as tokens with two merges, and the family's special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [PAD, END, BEGIN, USER, ANSWER, TURN]
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet, "Ġt", "he"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "t"), ("h", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if family.begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, 2)]
        )
    names = {"pad_token": PAD, "eos_token": END} | ({"bos_token": BEGIN} if family.begin else {})
    extra = [USER, ANSWER, TURN] + ([] if family.begin else [BEGIN])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=extra, **names)
    if family.template:
        made.chat_template = family.template
    return made


def build(family: Family, folder: Path) -> Path:
    """The family's model and tokenizer, saved as those of the Hub are."""
    kind = "Gemma3Text" if family.kind == "Gemma3" else family.kind
    config_class: Any = getattr(transformers, f"{kind}Config")
    tokenizer = build_tokenizer(family)
    ids = {"bos_token_id": 2 if family.begin else None, "eos_token_id": 1, "pad_token_id": 0}
    long = {} if "n_positions" in family.options else {"max_position_embeddings": 1024}
    config = config_class(**{"vocab_size": 272, **long, **ids, **family.options})
    name = f"{family.kind}LMHeadModel" if family.kind in ("GPT2", "Bert") else f"{family.kind}ForCausalLM"
    model = seeded(getattr(transformers, name), config, 0)
    with torch.no_grad():  # weights of 0.02 make scores so even that no cap and no scale would show
        generator = torch.Generator().manual_seed(0)
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.15, generator=generator)
    if family.ends:
        model.generation_config.eos_token_id = [1, 5]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
