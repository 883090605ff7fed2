"""Tiny random models, built in code: the real architectures, small enough to train in seconds. Know nothing.

They answer gibberish. Their use is to run every line of the series, and to show what a library does to Falcon where
Falcon-7B does not fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.machine.language import tr
from helpers.machine.paths import cache_folder
from helpers.machine.places import Place, folder_aside, lock, require
from helpers.models import manifest

if TYPE_CHECKING:
    from transformers import FalconForCausalLM, LlamaForCausalLM, PretrainedConfig, PreTrainedTokenizerFast

NAMES = ("tiny-llama", "tiny-falcon")
VERSION = "2"  # part of the folder's name: raise it when the models change
PAD, EOS = "<pad>", "<eos>"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the 256 bytes, plus a pad and an end token; any text survives a round trip."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {PAD: 0, EOS: 1} | {byte: index + 2 for index, byte in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, model_max_length=2048)


def build_llama(seed: int = 0) -> LlamaForCausalLM:
    """A random Llama of 0.2 M parameters: 2 layers, 4 query heads on 2 key/value heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=258,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    return seeded(LlamaForCausalLM, config, seed)


def build_falcon(seed: int = 0) -> FalconForCausalLM:
    """A random Falcon shaped like Falcon-7B: rotary positions, parallel attention, one key/value head."""
    from transformers import FalconConfig, FalconForCausalLM

    config = FalconConfig(
        vocab_size=258,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        bias=False,
        alibi=False,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return seeded(FalconForCausalLM, config, seed)


def seeded(model_class: Any, config: PretrainedConfig, seed: int) -> Any:
    """A model with random weights that depend on the seed alone; the caller's random state is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()


def tiny_folder(name: str) -> Path:
    """Folder with the tiny model of this name, saved as any model is; made on the first call."""
    folder = cache_folder() / f"{name}-v{VERSION}"
    if not manifest.folder_fault(folder):
        return folder
    require(Place(tr("the cache folder"), cache_folder(), "FT_CACHE", 0.0))
    with lock(cache_folder() / "tiny.lock"):
        if manifest.folder_fault(folder):
            builders = {"tiny-llama": build_llama, "tiny-falcon": build_falcon}
            with folder_aside(folder) as aside:
                builders[name]().save_pretrained(aside)
                build_tokenizer().save_pretrained(aside)
                manifest.write_manifest(aside)
    return folder
