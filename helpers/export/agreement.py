"""Does a merged model answer as base + adapter? Both are loaded, where they fit, and their logits compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from helpers.export.errors import ExportError
from helpers.machine.hardware import this_machine
from helpers.machine.language import Phrase, phrase, tr
from helpers.models.adapter import check_loaded

TOKENS = 48


class Agreement(NamedTuple):
    """Differences of logits, as root mean squares over the spread of base + adapter's: 0.01 is one percent.

    merged: of the merged model to base + adapter. adapter: of base + adapter to the base.
    """

    merged: float
    adapter: float

    def sentence(self) -> str:
        """Both figures in words."""
        return tr(self.english)

    @property
    def english(self) -> Phrase:
        """The same for files."""
        return phrase(
            "the merged model's logits differ by {merged:.2%} of their spread from those of base + adapter; the "
            "adapter moves them by {adapter:.2%}",
            **self._asdict(),
        )


def logits_agreement(base: Path, adapter: Path, merged: Path, exact: bool = False) -> Agreement | None:
    """How far the merged model is from base + adapter; None where two of them do not fit into the memory.

    exact: its weights are float32, so that nothing was rounded. Raises ModelError when the adapter's file lacks a part.
    Raises ExportError when it is no nearer to it than rounding would leave it.
    """
    size = sum(path.stat().st_size for path in Path(merged).glob("*.safetensors"))
    if 6 * size > this_machine().ram_gib * 2**30:  # two models, in float32
        return None
    from peft import PeftModel

    model, other = load(base), load(merged)
    known = model.config.get_text_config().vocab_size
    ids = torch.arange(7, 7 + TOKENS).remainder(known)[None]
    with torch.no_grad():
        without, ours = (one(input_ids=ids, use_cache=False).logits for one in (model, other))
        if (rows := len(other.get_input_embeddings().weight)) != len(model.get_input_embeddings().weight):
            model.resize_token_embeddings(rows, mean_resizing=False)
        tuned = PeftModel.from_pretrained(model, str(adapter)).eval()
        check_loaded(tuned, adapter)
        wanted = tuned(input_ids=ids, use_cache=False).logits
    differences = (ours - wanted, (without - wanted[..., : without.shape[-1]]))
    spread = wanted.std().item() or 1.0  # a model may give the same score to all tokens
    agreement = Agreement(*(one.square().mean().sqrt().item() / spread for one in differences))
    if not agreement.merged <= (1e-3 if exact else max(0.05, 0.3 * agreement.adapter)):  # not a number, too
        raise ExportError(
            tr(
                "the merge is not base + adapter: {sentence}. Use PEFT's merge_and_unload.",
                sentence=agreement.sentence(),
            )
        )
    return agreement


def load(folder: Path) -> Any:
    """A saved model in float32, on the CPU."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    ).eval()
