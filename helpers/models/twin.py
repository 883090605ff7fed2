"""A tiny twin of a model, its configuration with small sizes: tried out before the real one is loaded."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from helpers.behaviour import answering, moved, moved_by_what_follows, some_ids
from helpers.machine.hardware import is_out_of_memory
from helpers.machine.language import phrase, tr
from helpers.machine.paths import PlaceError, scratch_folder
from helpers.models.lora import lora_config, plain
from helpers.models.source import ModelError
from helpers.settings import Settings

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MOST = 32_000_000  # parameters of a twin, so that it is soon made and asked
VOCABULARY, LAYERS, EXPERTS, TOKENS, LONGEST = 320, 4, 16, 24, 2048
# What makes a layer wide, by the names that configurations use; the size of a single head stays as it is.
HEADS = re.compile(r"(\w*_)?heads?(_kv)?$")
SHARED = re.compile(r"kv|key_value")  # heads of keys and values: one for several of the queries
WIDTHS = re.compile(
    r"(\w+_)?(hidden_size|intermediate_size|ffn_dim|ffn_hidden_size)$|"
    r"(n_embd|d_model|n_inner|d_ff|d_inner|lru_width|embedding_size|word_embed_proj_dim|mamba_d_ssm)$"
)
FEW = re.compile(r"((n|num|moe_num)_(\w*_)?experts|\w*layers?|(\w+_)?vocab_size)$")
OTHERWISE = phrase("Choose a decoder, such as llama, mistral or qwen2.")


class AdapterError(ModelError):
    """An adapter on these layers of a model fails; on others it may not."""


proved: set[str] = set()  # kinds whose twin was tried in this process, by their configuration


@torch.inference_mode(False)
@torch.enable_grad()  # whoever loads a model may be in no_grad or inference_mode
def check_twin(settings: Settings, config: PretrainedConfig) -> None:
    """Raises ModelError when a model of this kind cannot be trained on texts, whatever its weights are.

    Found out on a twin: whether a token sees what follows it, whether the loss of the model's own class is that of the
    next token and has a gradient, whether `generate` answers with what the model itself gives, and whether a saved
    adapter comes back. Where there is no twin that runs, nothing is said.
    """
    known = f"{type(config)} {config.to_json_string()} {replace(settings, reasons={})}"
    if known in proved or (twin := twin_of(config)) is None:
        return
    kind = f"{settings.model} ({config.model_type})"
    check_reading(kind, twin, min(settings.max_length, LONGEST))
    check_loss(kind, twin, config)
    with quietly():
        alike = answers_as_it_reads(twin)
    if not alike:
        raise ModelError(
            tr(
                "{kind}: `model.generate` in transformers gives other logits than the model itself, "
                "which is what is trained: it counts positions in another way, probably. {advice}",
                kind=kind,
                advice=OTHERWISE,
            )
        )
    with quietly(), torch.random.fork_rng(devices=[]):
        same = adapter_comes_back(settings, kind, twin)
    if not same:
        raise AdapterError(
            tr(
                "{kind}: an adapter that is saved on these layers of it ({targets}) is another one when "
                "the installed peft and transformers load it.",
                kind=kind,
                targets=settings.target_modules,
            )
        )
    proved.add(known)


def check_reading(kind: str, twin: Any, longest: int) -> None:
    """Raises ModelError where a token sees what follows it. longest: tokens of the longest text that is tried."""
    if not moved_by_what_follows(twin, TOKENS // 2).hardly:
        raise ModelError(
            tr(
                "{kind} reads a text from both sides, and does not continue texts. {advice}",
                kind=kind,
                advice=OTHERWISE,
            )
        )
    if longest <= TOKENS:
        return
    try:
        moved_far = not moved_by_what_follows(twin, longest // 2).hardly
    except (IndexError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            tr(
                "{kind} cannot read a text of {longest:,} tokens, which its config.json allows ({said}): set "
                "MAX_LENGTH to fewer, or choose another model.",
                kind=kind,
                longest=longest,
                said=str(error).splitlines()[0][:150],
            )
        ) from error
    if moved_far:
        raise ModelError(
            tr(
                "{kind}: in a text of {longest:,} tokens each sees some that follow it, in one of "
                "{tokens} none does. A window in its config.json is shorter: set MAX_LENGTH to that, or "
                "choose another model.",
                kind=kind,
                longest=longest,
                tokens=TOKENS,
            )
        )


def check_loss(kind: str, twin: Any, config: PretrainedConfig) -> None:
    """Raises ModelError where the loss of the model's own class is not that of the next token."""
    own, wanted = losses(kind, twin)
    router = getattr(config.get_text_config(), "output_router_logits", False)  # its loss is a part of the model's own
    if not router and not math.isclose(own, wanted, rel_tol=1e-2):
        raise ModelError(
            tr(
                "{kind}: its class in transformers was made for another task, its loss is not that of "
                "the next token ({own:.3g} instead of {wanted:.3g} on a tiny model of its kind). {advice}",
                kind=kind,
                own=own,
                wanted=wanted,
                advice=OTHERWISE,
            )
        )


def losses(kind: str, twin: Any) -> tuple[float, float]:
    """A twin's own loss of some tokens, and that of the next token from its logits. Raises ModelError."""
    ids = some_ids(twin, TOKENS)
    try:
        out = twin(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, use_cache=False)
        out.loss.backward()
    except Exception as error:
        raise without_loss(kind, error) from error
    twin.zero_grad(set_to_none=True)
    wanted = torch.nn.functional.cross_entropy(out.logits[0, :-1].float(), ids[0, 1:])
    return out.loss.item(), wanted.item()


def answers_as_it_reads(twin: Any, count: int = 3) -> bool:
    """Whether `model.generate`, without a cache, has the logits of the whole text; True where it makes no tokens."""
    ids = some_ids(twin, TOKENS // 2)
    knobs = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "use_cache": False}
    with answering(twin):
        try:
            generated = twin.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                pad_token_id=0,
                output_logits=True,
                return_dict_in_generate=True,
                **knobs,
            )
        except Exception as error:  # each family fails in its own way; the other means of answering remain
            if is_out_of_memory(error):
                raise
            return True
        whole = twin(input_ids=generated.sequences[:, :-1], use_cache=False).logits[0, -count:]
    return len(generated.logits) != count or moved(torch.cat(generated.logits), whole).hardly


def adapter_comes_back(settings: Settings, kind: str, twin: Any) -> bool:
    """Whether an adapter that PEFT saves and loads again gives the same logits; True where none fits on the twin.

    Raises ModelError when the model does not run with it.
    """
    from peft import PeftModel, get_peft_model

    ids = some_ids(twin, TOKENS)
    try:
        tuned: Any = get_peft_model(twin, lora_config(plain(settings), twin)).eval()
    except (RuntimeError, ValueError):  # a layer that the settings name is not among the twin's few
        return True
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    try:
        with torch.no_grad(), scratch_folder() as folder:
            wanted = tuned(input_ids=ids, use_cache=False).logits
            tuned.save_pretrained(str(folder), save_embedding_layers=False)
            again = PeftModel.from_pretrained(tuned.unload(), str(folder)).eval()
            return torch.allclose(again(input_ids=ids, use_cache=False).logits, wanted, atol=1e-3, rtol=1e-3)
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, PlaceError):
            raise
        raise AdapterError(
            tr(
                "{kind} does not run with an adapter on {targets} ({said}).",
                kind=kind,
                targets=settings.target_modules,
                said=said(error),
            )
        ) from error


@torch.inference_mode(False)
@torch.enable_grad()
def with_gradient(settings: Settings, twin: Any) -> set[str]:
    """The names of layers whose adapter has a gradient on the twin, which has the adapter afterwards."""
    from peft import get_peft_model

    ids = some_ids(twin, TOKENS)
    tuned: Any = get_peft_model(twin, lora_config(plain(settings), twin))
    tuned(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    layers = [name.partition(".lora_B")[0] for name, weight in tuned.named_parameters() if weight.grad is not None]
    return {layer.rpartition(".")[2] for layer in layers}


def without_loss(kind: str, error: Exception) -> Exception:
    """The error for a kind that fails in its own way; a full memory is none of these."""
    if is_out_of_memory(error):
        return error
    return ModelError(
        tr(
            "{kind} has no loss with a gradient in the installed transformers ({said}). {advice}",
            kind=kind,
            said=said(error),
            advice=OTHERWISE,
        )
    )


def said(error: Exception) -> str:
    """An error of a library on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def twin_of(config: PretrainedConfig) -> Any:
    """A model of the same class with a few narrow layers and random weights; None where none can be made that runs."""
    from transformers import AutoModelForCausalLM

    for divisor in dict.fromkeys((common_heads(config), 1)):
        try:
            with quietly(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                small = narrowed(config, divisor)
                with torch.device("meta"):
                    empty = AutoModelForCausalLM.from_config(small, trust_remote_code=False)
                if sum(weight.numel() for weight in empty.parameters()) > MOST:
                    continue
                twin = AutoModelForCausalLM.from_config(small, trust_remote_code=False, dtype=torch.float32).eval()
                spread(twin)
                with torch.no_grad():
                    logits = twin(input_ids=some_ids(twin, TOKENS), use_cache=False).logits
            if logits.isfinite().all():
                return twin
        except Exception as error:  # the small sizes do not fit together: that says nothing of the model
            if is_out_of_memory(error):
                raise
    return None


@contextmanager
def quietly() -> Iterator[None]:
    """While it is open, the libraries say nothing: of a model that is thrown away."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def spread(twin: Any) -> None:
    """Random weights under which every layer moves the logits: with the library's first ones they are nearly even."""
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.normal_(std=module.in_features**-0.5)
            elif isinstance(module, torch.nn.Embedding):
                module.weight.normal_()


def common_heads(config: PretrainedConfig) -> int:
    """By how much a model can be narrowed with its heads left whole, and two of them where their number is even."""
    values = config.get_text_config().to_dict()
    counts = [value for name, value in values.items() if HEADS.match(name) and not SHARED.search(name)]
    divisor = math.gcd(*(value for value in counts if is_count(value) and value > 1)) or 1
    return divisor // 2 if divisor % 2 == 0 else divisor


def is_count(value: Any) -> bool:
    """Whether a value is a whole number, and no yes or no."""
    return isinstance(value, int) and not isinstance(value, bool)


def narrowed(config: PretrainedConfig, divisor: int) -> PretrainedConfig:
    """The configuration with widths and numbers of heads divided, and few layers, tokens and experts."""
    inner, whole = config.get_text_config(), config.to_dict()
    small = smaller(inner.to_dict(), inner.num_hidden_layers, divisor)
    if inner is not config:
        part = next(name for name in config.sub_configs if getattr(config, name, None) is inner)
        small = whole | {part: small}
    small.pop("quantization_config", None)
    return type(config).from_dict(small)


def smaller(values: dict[str, Any], layers: int, divisor: int) -> dict[str, Any]:
    """A configuration's values made small; of lists with a value for each layer, those of one layer of each kind."""
    lists = {name: value for name, value in values.items() if isinstance(value, list) and len(value) == layers}
    kinds = [repr(kind) for kind in zip(*lists.values(), strict=True)]
    kept = sorted({0, min(1, layers - 1)} | {kinds.index(kind) for kind in kinds}) if lists else range(LAYERS)
    small: dict[str, Any] = {}
    for name, value in values.items():
        if name in lists:
            value = [value[index] for index in kept]
        elif name == "per_layer_config" and isinstance(value, dict):
            by_layer = {int(index): one for index, one in value.items()}
            value = {new: by_layer[old] for new, old in enumerate(kept) if old in by_layer}
        elif name.endswith("_token_id") and value is not None:
            value = 0  # the vocabulary is small
        elif is_count(value) and (count := size_of(name, value, layers, len(kept), divisor)):
            value = count
        small[name] = value
    return small


def size_of(name: str, value: int, layers: int, kept: int, divisor: int) -> int:
    """What a size becomes in the twin; 0 for one that stays as it is."""
    if match := FEW.match(name):
        if name.endswith(("layer", "layers")):
            return min(layers, kept) if value == layers else 0
        return min(value, EXPERTS if match[2] else VOCABULARY)
    if "experts_per_tok" in name:
        return min(value, 2)
    if HEADS.match(name):
        return max(1, value // divisor)
    return 16 * math.ceil(value / divisor / 16) if WIDTHS.match(name) else 0  # products of experts want multiples
