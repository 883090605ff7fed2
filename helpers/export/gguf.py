"""A merged model as one GGUF file, for llama.cpp and Ollama. Works on safetensors; loads no model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from helpers.export.converter import convert_with_llama_cpp
from helpers.export.errors import ExportError
from helpers.export.files import read_config, shared_text
from helpers.export.gguf_tokenizer import add_tokenizer, read_words
from helpers.export.merge import saved_generation
from helpers.export.modelfile import modelfile
from helpers.export.weights import base_files, base_tensors
from helpers.machine.language import listed, tr
from helpers.machine.paths import writes_to
from helpers.models.source import panics_as_errors

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
# transformers' name of a family: the format's, and whether it turns neighbouring pairs of q and k, not halves.
COMPUTED = ".rotary_emb.inv_freq"  # what older files keep of the positions
FAMILIES = {"llama": ("llama", True), "mistral": ("llama", True), "qwen2": ("qwen2", False), "qwen3": ("qwen3", False)}


def write_gguf(model: Path, target: Path, kind: str = "F16", llama_cpp: Path | None = None) -> Path:
    """Writes a saved model (safetensors) as GGUF, and a Modelfile for Ollama beside it.

    kind: F32, F16, BF16, or 8 or 4 bits a weight in blocks of 32 with a scale (Q8_0, Q4_0; embedding and head keep 8).
    llama_cpp: a checkout of llama.cpp, whose own converter is run then, for families and tokenizers that this writer
    does not know. Names and sizes are that converter's.
    Raises ExportError, before anything is written, for what cannot be expressed.
    Source: gguf-py/gguf/constants.py and conversion/ in ggml-org/llama.cpp; read, not copied.
    """
    model, target = Path(model), Path(target)
    if kind not in KINDS:
        raise ExportError(
            tr(
                "{kind!r}: it is one of {names}. llama.cpp's llama-quantize makes the others.",
                kind=kind,
                names=listed(KINDS),
            )
        )
    config, tokenizer = read_whole(model)
    if not llama_cpp:
        check_shape(config)
        check_tensors(model, config)
        check_ends(model, len(tokenizer))
    half_done = target.with_name(target.name + ".part")
    with writes_to(target, ""):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if llama_cpp:
                convert_with_llama_cpp(Path(llama_cpp), model, half_done, kind)
            else:
                write_natively(model, half_done, kind, config, tokenizer)
            half_done.replace(target)
        finally:
            half_done.unlink(missing_ok=True)
    shared_text(target.parent / "Modelfile", modelfile(target.name, tokenizer, end_tokens(model)))
    return target


def end_tokens(model: Path) -> list[int]:
    """Every end token of a saved model."""
    ends = saved_generation(model, read_config(model)).eos_token_id
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def write_natively(model: Path, target: Path, kind: str, config: dict, tokenizer: Any) -> None:
    """The file, by this writer; everything is checked before its first byte."""
    import gguf

    words = read_words(model, config["vocab_size"], tokenizer)
    arch, turns_pairs = FAMILIES[config["model_type"]]
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), config["num_hidden_layers"])
    heads = (config["num_attention_heads"], config["num_key_value_heads"]) if turns_pairs else None
    writer = gguf.GGUFWriter(target, arch)
    add_sizes(writer, config, kind)
    add_tokenizer(writer, words, tokenizer, end_tokens(model), tokenizer.chat_template or "")
    for key, weight in weights(model):
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ExportError(
                tr("the format has no name for {key}: name llama.cpp's folder to use its own converter.", key=key)
            )
        data, quantization = as_gguf(key, weight.float(), heads, kind)
        writer.add_tensor(name, data, raw_dtype=quantization)
    if (factors := rope_factors(config)) is not None:
        writer.add_tensor("rope_freqs.weight", factors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_whole(model: Path) -> tuple[dict, Any]:
    """(configuration, with what transformers assumes where config.json says nothing; tokenizer). Raises ExportError."""
    from transformers import AutoConfig, AutoTokenizer

    own = read_config(model)
    if "quantization_config" in own:
        raise ExportError(tr("{model} is quantized: write the 16-bit weights that it was made from.", model=model.name))
    try:
        with panics_as_errors():
            whole = AutoConfig.from_pretrained(model, trust_remote_code=False).to_dict() | own
            return whole, AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # whatever is odd in these files fails where the library first meets it
        said = " ".join(str(error).split())[:160]
        raise ExportError(
            tr(
                "{model}/config.json or tokenizer is none that transformers can read ({said}).",
                model=model.name,
                said=said,
            )
        ) from None


def check_ends(model: Path, known: int) -> None:
    """Raises ExportError for end tokens that the tokenizer does not have."""
    if odd := [token for token in end_tokens(model) if not isinstance(token, int) or not 0 <= token < known]:
        raise ExportError(
            tr(
                "{model}/generation_config.json: eos_token_id={odd!r} is no token of {known:,}.",
                model=model.name,
                odd=odd[0],
                known=known,
            )
        )


def check_tensors(model: Path, config: dict) -> None:
    """Raises ExportError unless the files hold exactly the weights, in the shapes, that the configuration asks for.

    transformers fills what is missing with random numbers, and passes over what it does not know.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    known = AutoConfig.from_pretrained(model, trust_remote_code=False)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(known, trust_remote_code=False)
    wanted = {key: tuple(weight.shape) for key, weight in empty.state_dict().items()}
    there = shapes_of(model)
    tied = {"lm_head.weight"} if config.get("tie_word_embeddings") else set()
    if missing := sorted(wanted.keys() - there.keys() - tied):
        raise ExportError(
            tr(
                "{model} has no {missing} ({n} such), which its configuration asks for.",
                model=model.name,
                missing=missing[0],
                n=len(missing),
            )
        )
    if more := sorted(there.keys() - wanted.keys()):
        raise ExportError(
            tr(
                "{model}: its configuration has no place for {more} ({n} such).",
                model=model.name,
                more=more[0],
                n=len(more),
            )
        )
    if other := sorted(key for key, shape in there.items() if shape != wanted[key]):
        key = other[0]
        raise ExportError(
            tr(
                "{model}: {key} is {there}, and its configuration asks for {wanted}.",
                model=model.name,
                key=key,
                there=there[key],
                wanted=wanted[key],
            )
        )


def shapes_of(model: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a saved model's weights, without reading them; computed positions are left out."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, keys in base_files(model).items():
        with safe_open(model / name, "pt") as file:
            shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in keys if not key.endswith(COMPUTED)}
    return shapes


def weights(model: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that the file gets: a head that equals the embedding is left out, whatever the configuration says."""
    embedding = None
    for key, weight in base_tensors(model):
        if key.endswith(COMPUTED):
            continue
        if key == "model.embed_tokens.weight":
            embedding = weight
        if key == "lm_head.weight":
            if embedding is None:
                embedding = dict(base_tensors(model)).get("model.embed_tokens.weight")
            if embedding is not None and torch.equal(weight, embedding):
                continue
        yield key, weight


def check_shape(config: dict) -> None:
    """Raises ExportError when this writer cannot express the model."""
    kind, other = config.get("model_type"), tr("name llama.cpp's folder (--llama-cpp) to use its own converter.")
    if kind not in FAMILIES:
        raise ExportError(
            tr(
                "this writer knows {names}, and this model is {kind}: {other}",
                names=listed(FAMILIES),
                kind=kind,
                other=other,
            )
        )
    scaling = rope_of(config).get("rope_type", "default")
    if scaling not in ("default", "llama3", "linear", "yarn"):
        raise ExportError(
            tr("rope scaling {scaling!r} is none that this writer knows: {other}", scaling=scaling, other=other)
        )
    window, context = config.get("sliding_window"), config["max_position_embeddings"]
    if window and window < context and (kind == "mistral" or config.get("use_sliding_window")):
        raise ExportError(
            tr(
                "this model sees the last {window:,} of {context:,} tokens, and llama.cpp all of them in "
                "this family: set max_position_embeddings to {window:,} in the merged config.json, which "
                "is what it can use.",
                window=window,
                context=context,
            )
        )
    told = {name: value for name, value in rope_of(config).items() if name not in ROPE and value is not None}
    if told.pop("partial_rotary_factor", 1) != 1 or told:
        raise ExportError(
            tr(
                "a rotary embedding with {value} is none that this writer knows: {other}",
                value=listed(told) or "partial_rotary_factor",
                other=other,
            )
        )
    if kind == "qwen3" and config.get("attention_bias"):
        raise ExportError(tr("a Qwen3 with biases in its attention is none that llama.cpp knows: {other}", other=other))
    if config.get("hidden_act", "silu") != "silu" or config.get("mlp_bias"):
        raise ExportError(tr("this model's MLP is not the family's usual one: {other}", other=other))


ROPE = {
    *("rope_theta", "rope_type", "type", "factor", "original_max_position_embeddings"),
    *("low_freq_factor", "high_freq_factor"),
}


def rope_of(config: dict) -> dict:
    """The rotary embedding's parameters; older configurations keep them in two places."""
    old = config.get("rope_scaling") or {}
    return {
        **{"rope_theta": config.get("rope_theta", 10_000.0)},
        **old,
        **({"rope_type": old["type"]} if "type" in old else {}),
        **(config.get("rope_parameters") or {}),
    }


def add_sizes(writer: GGUFWriter, config: dict, kind: str) -> None:
    """The model's shape."""
    import gguf

    rope, heads = rope_of(config), config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_name("fine-tuned")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
        add(head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "yarn":
        length = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(length)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(getattr(gguf.LlamaFileType, "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def rope_factors(config: dict) -> torch.Tensor | None:
    """(head_dim / 2,): what Llama 3's scaling divides each frequency by, which the format keeps as a tensor.

    Long waves are divided by the factor, short ones are left, between them it rises smoothly. Source:
    transformers/modeling_rope_utils.py.
    """
    rope = rope_of(config)
    if rope.get("rope_type") != "llama3":
        return None
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    frequencies = rope["rope_theta"] ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    waves = 2 * math.pi / frequencies
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    turns = rope["original_max_position_embeddings"] / waves
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()


def as_gguf(
    key: str, weight: torch.Tensor, heads: tuple[int, int] | None, kind: str
) -> tuple[np.ndarray, GGMLQuantizationType]:
    """(numbers, type) of one tensor; vectors stay float32. heads: of q and of k where their pairs are reordered."""
    import gguf

    if heads and (".q_proj." in key or ".k_proj." in key):
        weight = weight.unflatten(0, (heads[".k_proj." in key], 2, -1)).transpose(1, 2).flatten(0, 2)
    if weight.ndim == 1:
        kind = "F32"
    elif kind == "Q4_0" and (".embed_tokens." in key or key.startswith("lm_head")):
        kind = "Q8_0"
    if kind in ("Q8_0", "Q4_0") and weight.shape[1] % 32:
        kind = "F16"
    largest = weight.abs().max().item()
    if not math.isfinite(largest) or (kind not in ("F32", "BF16") and largest > torch.finfo(torch.float16).max):
        hint = tr("BF16 has room for it") if math.isfinite(largest) else tr("take an older checkpoint, or train again")
        raise ExportError(
            tr(
                "{key} holds {largest:.3g}, which is no number in {kind}: {hint}.",
                key=key,
                largest=largest,
                kind=kind,
                hint=hint,
            )
        )
    quantization = gguf.GGMLQuantizationType[kind]
    return gguf.quants.quantize(weight.contiguous().numpy(), quantization), quantization
