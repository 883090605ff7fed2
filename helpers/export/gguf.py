"""A merged Llama as one GGUF file, for llama.cpp and Ollama. Works on safetensors; loads no model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from helpers.data import chat
from helpers.export.errors import ExportError
from helpers.export.merge import base_tensors
from helpers.models import embedded

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

KINDS = ("F16", "Q8_0")
LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
# The chat forms of helpers/data/chat.py as Ollama's TEMPLATE, and the texts that end an answer besides the end token.
FORMS = {
    chat.GUANACO: (
        "{{ if .System }}{{ .System }}\n{{ end }}### Human: {{ .Prompt }}### Assistant:",
        ["### Human:"],
    ),
    chat.CHATML: (
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
        "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n"
        "<|im_start|>assistant\n",
        [],
    ),
}


def write_gguf(model: Path, target: Path, kind: str = "F16") -> Path:
    """Writes a saved Llama (safetensors) with the embedded model's tokenizer as GGUF, and a Modelfile beside it.

    kind: F16, or Q8_0 (8 bits a weight, in blocks of 32 with a scale). Names and sizes are those of llama.cpp's own
    converter; q and k are reordered, since llama.cpp turns neighbouring pairs and transformers halves.
    Raises ExportError for other families and other tokenizers: use convert_hf_to_gguf.py of llama.cpp for them.
    Source: gguf-py/gguf/constants.py and convert_hf_to_gguf.py in ggml-org/llama.cpp; read, not copied.
    """
    import gguf

    model, target = Path(model), Path(target)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    reader = gguf.GGUFReader(embedded.gguf_file())
    check(config, kind, reader)
    target.parent.mkdir(parents=True, exist_ok=True)
    half_done = target.with_name(target.name + ".part")
    writer = gguf.GGUFWriter(half_done, "llama")
    try:
        add_sizes(writer, config, kind)
        add_tokenizer(writer, reader, model)
        heads = config["num_attention_heads"], config["num_key_value_heads"]
        for key, weight in base_tensors(model):
            if key == "lm_head.weight" and config.get("tie_word_embeddings"):
                continue
            name, data, quantization = as_gguf(key, weight.float(), heads, kind)
            writer.add_tensor(name, data, raw_dtype=quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        half_done.replace(target)
    finally:
        half_done.unlink(missing_ok=True)
    end = reader.fields["tokenizer.ggml.tokens"].contents(config["eos_token_id"])
    (target.parent / "Modelfile").write_text(modelfile(target.name, chat_template(model), end), encoding="utf-8")
    return target


def chat_template(model: Path) -> str:
    """The chat template that a model was saved with; "" if there is none."""
    file = model / "chat_template.jinja"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def modelfile(file: str, template: str, end: str) -> str:
    """Ollama's Modelfile for a chat template of this project; with another, Ollama takes the one inside the file."""
    form, stops = FORMS.get(template, ("", []))
    lines = [f"FROM ./{file}", *([f'TEMPLATE """{form}"""'] if form else [])]
    return (
        "\n".join([*lines, *[f'PARAMETER stop "{stop}"' for stop in [*stops, end]], "PARAMETER temperature 0"]) + "\n"
    )


def check(config: dict, kind: str, reader: GGUFReader) -> None:
    """Raises ExportError when this writer cannot express the model."""
    if kind not in KINDS:
        raise ExportError(f"{kind!r}: it is one of {', '.join(KINDS)}. llama.cpp's llama-quantize makes the others.")
    tokens = len(reader.fields["tokenizer.ggml.tokens"].contents())
    if config["model_type"] != "llama" or config.get("attention_bias") or config["vocab_size"] != tokens:
        raise ExportError(
            f"{config['model_type']} with {config['vocab_size']:,} tokens: this writer knows Llamas with the embedded "
            f"model's {tokens:,} tokens. For others take convert_hf_to_gguf.py of llama.cpp on the merged folder."
        )


def add_sizes(writer: GGUFWriter, config: dict, kind: str) -> None:
    """The model's shape."""
    import gguf

    rope = config.get("rope_parameters") or {}
    heads = config["num_attention_heads"]
    writer.add_name("fine-tuned")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_rope_freq_base(config.get("rope_theta") or rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "F16" else gguf.LlamaFileType.MOSTLY_Q8_0)


def add_tokenizer(writer: GGUFWriter, reader: GGUFReader, model: Path) -> None:
    """The embedded file's tokenizer, with the chat template that the model was trained in."""
    from gguf import GGUFValueType

    for name, field in reader.fields.items():
        if not name.startswith("tokenizer.") or name == "tokenizer.chat_template":
            continue
        parts = field.types[1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], parts)
    if template := chat_template(model):
        for mark in ("{% generation %}", "{% endgeneration %}"):  # for training; other engines do not know them
            template = template.replace(mark, "")
        writer.add_chat_template(template)


def as_gguf(
    key: str, weight: torch.Tensor, heads: tuple[int, int], kind: str
) -> tuple[str, np.ndarray, GGMLQuantizationType]:
    """(name, numbers, type) of one tensor of a Llama; vectors stay float32."""
    import gguf

    stem = key.removesuffix(".weight")
    if stem in WHOLE:
        name = WHOLE[stem]
    else:
        _, _, number, part = stem.split(".", 3)
        name = f"blk.{number}.{LAYER[part]}"
        if part in ("self_attn.q_proj", "self_attn.k_proj"):
            count = heads[part.endswith("k_proj")]
            weight = weight.unflatten(0, (count, 2, -1)).transpose(1, 2).flatten(0, 2)
    quantization = gguf.GGMLQuantizationType[kind if weight.ndim == 2 else "F32"]
    if weight.ndim == 2 and kind == "Q8_0" and math.remainder(weight.shape[1], 32):
        quantization = gguf.GGMLQuantizationType.F16
    data = gguf.quants.quantize(weight.contiguous().numpy(), quantization)
    return name + ".weight", data, quantization
