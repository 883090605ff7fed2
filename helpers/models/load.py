"""Loading: from settings to a model, its tokenizer and a report that proves what was loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from helpers.data.chat import set_template
from helpers.data.ends import end_ids
from helpers.machine.fetched import damaged_files
from helpers.machine.language import tr
from helpers.machine.pins import is_hub_name
from helpers.machine.processes import here, sharded
from helpers.models import attention, embedded, falcon
from helpers.models.float8 import is_float8, use_float8
from helpers.models.source import ModelError, as_model_errors, load_config, origin, own_code
from helpers.models.targets import advice, check_layers
from helpers.models.twin import AdapterError, check_twin
from helpers.settings import EMBEDDED, Settings

if TYPE_CHECKING:
    from transformers import (
        BitsAndBytesConfig,
        GenerationConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )


class LoadReport(NamedTuple):
    """What was loaded, counted on the model itself. Bytes are of parameters as they lie in memory."""

    parameters: int
    weight_bytes: int
    body_linears: int
    quantized_linears: int
    bits: int = 4  # of a number in a quantized layer

    def sentence(self) -> str:
        """The report in one sentence."""
        facts = {"millions": self.parameters / 1e6, "mib": self.weight_bytes / 2**20}
        facts |= {"n": self.quantized_linears, "all": self.body_linears, "bits": self.bits}
        return tr("{millions:,.1f} M parameters in {mib:,.0f} MiB; {n} of {all} linear layers are {bits}-bit", **facts)


class Loaded(NamedTuple):
    """A model with its tokenizer (chat template set) and the report."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    report: LoadReport


def describe_model(settings: Settings) -> str:
    """The base model's name as a reader would search for it."""
    return f"{embedded.BASE_MODEL} (embedded)" if settings.model == EMBEDDED else settings.model


def quantization_config(settings: Settings) -> BitsAndBytesConfig | None:
    """NF4 with double quantization, computing in the settings' dtype; None when nothing is to be quantized.

    Every value is passed: bitsandbytes' defaults are FP4, float32 compute and no double quantization. FSDP shares out
    floating-point weights only, so the 4-bit numbers are stored as such there (accelerate issues 3983 and 3987).
    """
    from transformers import BitsAndBytesConfig

    if settings.quantization != "nf4":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
        bnb_4bit_quant_storage=getattr(torch, settings.dtype) if sharded() else torch.uint8,
    )


def load_tokenizer(settings: Settings) -> PreTrainedTokenizerBase:
    """The tokenizer with the settings' chat template; its pad token is the end token if it has none of its own.

    Labels are made before padding, so padding with the end token does not hide the end of an answer.
    """
    from transformers import AutoTokenizer

    try:
        with as_model_errors(settings):
            tokenizer = AutoTokenizer.from_pretrained(**origin(settings))
    except ModelError:
        check_fetched(settings)  # the download, if it is that, and not the model
        raise
    check_fetched(settings)
    if tokenizer.eos_token is None:
        raise ModelError(
            tr("the tokenizer of {model} has no end token, so the model could not learn to stop.", model=settings.model)
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    try:
        set_template(tokenizer, settings.template)
    except ValueError as error:
        raise ModelError(tr("{name}: {error}.", name=settings.model, error=error)) from None
    tokenizer.template_options = {"enable_thinking": settings.thinking == "trained"}  # type: ignore[attr-defined]
    return tokenizer


def load_model(settings: Settings) -> Loaded:
    """The model of the settings on its device, ready to generate, with proof of what it is.

    Raises ModelError, before anything is loaded, when the model cannot serve these settings; afterwards when it was to
    be quantized and a linear layer of its body is not.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(settings)
    empty = check_model(settings)
    kernel = attention.serving(empty, settings.attention, settings.max_length)
    if kernel.value != settings.attention:
        print(tr("attention={kernel!r}: {reason}", kernel=kernel.value, reason=kernel.reason))
    if code := own_code(settings, empty.config):
        print(
            tr(
                "not run: {code} ({n} such), the model's own code; its class here is transformers' own",
                code=code[0],
                n=len(code),
            )
        )
    try:
        with falcon.quantizable(empty.config.model_type), as_model_errors(settings):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                **origin(settings),
                output_loading_info=True,
                use_safetensors=True,
                dtype=getattr(torch, settings.dtype),
                quantization_config=quantization_config(settings),
                device_map={"": here().local if settings.device == "cuda" else "cpu"},
                attn_implementation=attention.for_loading(kernel.value),
            )
    except ModelError:
        check_fetched(settings)  # the download, if it is that, and not the model
        raise
    model, info = loaded
    check_fetched(settings)
    check_weights(settings, info)
    keep_gradients_on_cpu(model)
    attention.install_kernel(model, kernel.value)
    if settings.quantization == "fp8":
        chosen = {id(linear) for linear in body_linears(model)}
        use_float8(model, [name for name, module in model.named_modules() if id(module) in chosen])
    report = inspect_model(model)
    check_quantized(settings, report)
    return Loaded(model.eval(), tokenizer, report)


def check_fetched(settings: Settings) -> None:
    """Raises ModelError when a file of a Hub model is not what the Hub has; it is fetched again next time."""
    at_a_commit = settings.revision and is_hub_name(settings.model)
    if at_a_commit and (wrong := damaged_files(settings.model, settings.revision)):
        raise ModelError(
            tr(
                "{model}: {name} is not what the Hub has, its hash is another; it was removed from the "
                "cache, so that loading the model again fetches it anew.",
                model=settings.model,
                name=wrong[0],
            )
        )


def generation_config(tokenizer: PreTrainedTokenizerBase, model: Any) -> GenerationConfig:
    """How the model is to generate after its training: as before, with the end tokens that it was trained with.

    Upstream: some published configurations hold values that contradict each other, and save_pretrained refuses them
    (ValueError); only the special tokens are kept then. Breaks: a training ends without this file.
    Drift: test_ends.py::test_a_generation_config_that_contradicts_itself_is_still_refused
    """
    from transformers import GenerationConfig

    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": end_ids(tokenizer, model),
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = GenerationConfig.from_dict({**model.generation_config.to_dict(), **tokens})
    try:
        config.validate(strict=True)
    except ValueError:
        config = GenerationConfig(**tokens)
    return config


def check_model(settings: Settings) -> Any:
    """An empty model (on the meta device) of those that can serve the settings.

    Raises ModelError when its type is unknown, it does not continue texts, its context is too short, or no adapter can
    be put on it. Reads the configuration only; the layers are those of an empty model on the meta device.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(settings)
    whole = getattr(config, "is_encoder_decoder", False)  # the decoder's class sets it to False
    with as_model_errors(settings), torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    check_decoder(empty, whole, settings)
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or 0
    if settings.max_length > context > 0:
        raise ModelError(
            tr(
                "max_length={max_length} is longer than {model}'s context: set it to at most {context}.",
                max_length=settings.max_length,
                model=settings.model,
                context=context,
            )
        )
    check_layers(empty, settings)
    try:
        check_twin(settings, config)
    except AdapterError as error:
        raise AdapterError(f"{error} {advice(config, settings)}") from None
    return empty


def check_decoder(empty: Any, whole: bool, settings: Settings) -> None:
    """Raises ModelError for a model that does not continue texts. whole: an encoder with a decoder was saved."""
    looks = {getattr(module, "is_causal", None) for module in empty.get_decoder().modules()}
    if whole or (False in looks and True not in looks):
        if whole:
            words = tr(
                "{model} is an encoder with a decoder ({kind}), and does not continue texts: choose a decoder, such as "
                "llama, mistral or qwen2.",
                model=settings.model,
                kind=empty.config.model_type,
            )
        else:
            words = tr(
                "{model} reads a text from both sides ({kind}), and does not continue texts: choose a decoder, such as "
                "llama, mistral or qwen2.",
                model=settings.model,
                kind=empty.config.model_type,
            )
        raise ModelError(words)


def check_weights(settings: Settings, info: dict[str, Any]) -> None:
    """Raises ModelError for weights that the files lack: the library fills them with random numbers.

    info: from_pretrained's loading info. Weights that no layer takes are told.
    """
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            tr(
                "{model}: its files lack {missing} ({n} such), which would be random numbers. Fetch it "
                "again; if it stays, it was saved as another kind of model.",
                model=settings.model,
                missing=missing[0],
                n=len(missing),
            )
        )
    if more := sorted(info["unexpected_keys"]):
        print(
            tr("of the model's files {name} ({n} such) belongs to no layer, and is not used", name=more[0], n=len(more))
        )


def keep_stream_in_float32(model: Any) -> None:
    """Lets the sum that runs through all layers (the residual stream) stay in float32 under float16 mixed precision.

    Each layer's products are still float16. In float16 the sum itself can pass 65,504 and become inf.
    """

    def widen(module, arguments, hidden_states):
        return hidden_states.float() if torch.is_autocast_enabled(hidden_states.device.type) else hidden_states

    model.get_input_embeddings().register_forward_hook(widen)


def body_linears(model: Any) -> list[torch.nn.Linear]:
    """The linear layers of the decoder, 4-bit ones included; the output head and LoRA's own are not among them."""
    from bitsandbytes.nn import Linear4bit

    head = model.get_output_embeddings()
    kinds = (torch.nn.Linear, Linear4bit)
    return [m for n, m in model.named_modules() if isinstance(m, kinds) and m is not head and "lora_" not in n]


def inspect_model(model: torch.nn.Module) -> LoadReport:
    """Counts parameters, bytes and quantized layers; a 4-bit weight holds two parameters a byte, FP8 is kept twice."""
    from bitsandbytes.nn import Linear4bit

    linears = body_linears(model)
    packed, rounded = [m for m in linears if isinstance(m, Linear4bit)], [m for m in linears if is_float8(m)]
    true = sum(m.in_features * m.out_features for m in packed + rounded)
    parameters = sum(p.numel() for p in model.parameters()) - sum(m.weight.numel() for m in packed) + true
    held = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for m in rounded for b in m.buffers())
    return LoadReport(parameters, held, len(linears), len(packed + rounded), 8 if rounded else 4)


def check_quantized(settings: Settings, report: LoadReport) -> None:
    """Raises ModelError when a quantization was asked for and not every linear layer of the body got it."""
    if settings.quantization != "none" and report.quantized_linears < report.body_linears:
        raise ModelError(not_quantized(settings.model, report.sentence()))


def not_quantized(model: str, sentence: str) -> str:
    """What check_quantized says. sentence: the report's."""
    return tr(
        "{model} was to be quantized, but {sentence}. The installed transformers passes over "
        "this architecture's layers; set quantization='none', or load a model of another family.",
        model=model,
        sentence=sentence,
    )


def keep_gradients_on_cpu(model: Any) -> None:
    """Keeps 4-bit layers trainable on a CPU after the model has generated or been evaluated.

    Upstream: on CPUs with AVX512-BF16 the first forward pass in eval mode repacks a Linear4bit for a kernel that has
    no backward pass (bitsandbytes/nn/modules.py, packing_format_for_cpu); training then goes on with wrong gradients.
    Breaks: the preflight's row "gradient" fails on such a CPU.
    Drift: test_upstream.py::test_a_flag_still_decides_whether_bitsandbytes_repacks_on_a_cpu
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
