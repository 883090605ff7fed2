"""A run's adapter as others load it: checked, with its model card. Knows PEFT's format; loads no model."""

import os
import shutil
from pathlib import Path

from helpers.export.card import adapter_card
from helpers.export.errors import ExportError
from helpers.export.files import copy_tokenizer, refuse_links, shared_card, shared_json
from helpers.export.merge import read_adapter
from helpers.machine.card import card_fault, read_card
from helpers.machine.language import tr
from helpers.machine.paths import writes_to
from helpers.models.adapter import check_fits
from helpers.models.embedded import BASE_MODEL
from helpers.models.source import ModelError, load_config
from helpers.run import read_settings
from helpers.settings import EMBEDDED, SettingsError

FILES = ("adapter_model.safetensors", "generation_config.json")
VLLM_REFUSES = (
    *("use_dora", "bias", "lora_bias", "modules_to_save", "trainable_token_indices", "rank_pattern", "alpha_pattern"),
)
VLLM_RANK = 16  # its --max-lora-rank when nothing is said


def read_run(run: Path) -> tuple[dict, dict]:
    """(settings, card) of a run's folder, each value of its type. Raises ExportError with what is wrong."""
    try:
        settings, card = read_settings(run / "settings.json").as_dict(), read_card(run)
    except SettingsError as error:
        raise ExportError(str(error)) from None
    if wrong := card_fault(card):
        raise ExportError(tr("{run}: {wrong}: train it again, or take another.", run=run.name, wrong=wrong))
    return settings, card


def vllm_faults(folder: Path) -> list[str]:
    """What vLLM's LoRA loader would refuse, in words; empty where nothing.

    Source: vllm/lora/peft_helper.py and lora_model.py; read, not run here. Of rank_pattern and alpha_pattern it reads
    nothing, so that layers with a rank or an alpha of their own would answer with another scale.
    """
    config, tensors, _ = read_adapter(folder)
    faults = [
        tr("{name} is missing", name=name) for name in ("r", "lora_alpha", "target_modules") if not config.get(name)
    ]
    more = [name for name in VLLM_REFUSES if config.get(name) not in (None, False, "none", [], {})]
    faults += [tr("{name}: it loads plain LoRA alone: merge the adapter instead", name=name) for name in more]
    if config.get("r", 0) > VLLM_RANK:
        faults.append(tr("r={r} is above {most}: start it with --max-lora-rank {r}", r=config["r"], most=VLLM_RANK))
    faults += [
        tr("{key} does not begin with base_model.model.", key=key)
        for key in tensors
        if not key.startswith("base_model.model.")
    ][:1]
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name or Path(name).is_absolute():
        faults.append(tr("base_model_name_or_path is no name, or a path of this machine"))
    return faults


def export_adapter(run: Path, target: Path, *, base: str = "", data_licence: str = "") -> Path:
    """Copies the adapter of a run folder into `target`, with a model card; returns `target`.

    base: the base model's name on the Hub; taken from the run's settings without it. data_licence: of your own data.
    Raises ExportError when the run has no whole adapter, or `target` is not empty.
    """
    run, target = Path(run), Path(target)
    config = read_adapter(run / "adapter").config
    if target.exists() and any(target.iterdir()):
        raise ExportError(tr("{target} is not empty: choose another folder.", target=target))
    settings, card = read_run(run)
    check_on_base(run)
    base = base or (BASE_MODEL if settings["model"] == EMBEDDED else settings["model"])
    refuse_links(run / "adapter", FILES)
    with writes_to(target, ""):
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (run / "adapter" / name).exists():
                shutil.copyfile(run / "adapter" / name, target / name)
    copy_tokenizer(run / "adapter", target)
    shared_json(target / "adapter_config.json", config | {"base_model_name_or_path": base})
    shared_card(target, adapter_card(base, settings, card, data_licence))
    return target


def check_on_base(run: Path) -> None:
    """Raises ExportError where a run's adapter does not fit an empty model of its base; where the base's configuration
    cannot be had, nothing is compared."""
    try:
        config = load_config(read_settings(run / "settings.json"))
    except (ModelError, OSError):
        return
    try:
        check_fits(config, run / "adapter")
    except ModelError as error:
        raise ExportError(str(error)) from None


def with_base(adapter: Path, base: Path, target: Path) -> Path:
    """A folder with the base's weights and the adapter, as transformers loads both at once; returns `target`.

    Weights are hard links where the disk allows it, so that they take no room a second time. For programs that take
    one folder, `transformers serve` among them.
    Upstream: from_pretrained loads an adapter beside the weights (transformers/integrations/peft.py).
    Breaks: the served model answers as the base does.
    Drift: test_upstream.py::test_a_folder_with_base_and_adapter_still_loads_both
    """
    read_adapter(adapter)
    with writes_to(target, ""):
        target.mkdir(parents=True, exist_ok=True)
    own = {path.name for path in Path(adapter).iterdir()}
    for path in [*Path(adapter).iterdir(), *(path for path in Path(base).iterdir() if path.name not in own)]:
        if path.suffix in (".safetensors", ".json", ".jinja"):
            with writes_to(target / path.name, ""):
                link_or_copy(path.resolve(), target / path.name)
    return target


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the disk has no such names."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def vllm_command(adapter: Path) -> str:
    """The command that would serve an exported adapter with vLLM, which has not been run here."""
    config = read_adapter(adapter).config
    rank = next((step for step in (8, 16, 32, 64, 128, 256, 320, 512) if step >= config["r"]), config["r"])
    form = f"--chat-template {adapter.name}/chat_template.jinja"
    lora = f"--enable-lora --max-lora-rank {rank} --lora-modules tuned={adapter.name}"
    return f"vllm serve {config['base_model_name_or_path']} --host 127.0.0.1 {lora} {form}"
