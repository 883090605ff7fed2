"""The settings of a run: profiles, overrides and the reason for every value. Loads nothing, trains nothing."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.data.load import GUANACO_ID, SHOP
from helpers.fields import EMBEDDED, Settings, SettingsError, check_values, wrong_value
from helpers.limits import TRACKERS
from helpers.machine.hardware import (
    Choice,
    Machine,
    choose_attention,
    choose_autocast,
    choose_device,
    choose_dtype,
    float8_fault,
    hub_reachable,
    this_machine,
)
from helpers.machine.inits import init_fault
from helpers.machine.language import phrase, tr
from helpers.machine.memory import FALCON_7B, SMOLLM2_135M, Batch, choose_batch, shape_in
from helpers.machine.pins import is_hub_name, pinned, split_name
from helpers.machine.values import one_of, value_fault
from helpers.machine.versions import can_import
from helpers.reasons import REASONS

DIVISION = {"per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"}  # of a step
SET = phrase("set by you")  # the reason of what was set in a notebook's parameters or on the command line
OWN_DATA = (SHOP, GUANACO_ID)  # data sets that the profiles know
HELD_OUT = phrase("of your held-out rows: enough to see a change, in a minute or two; 0 is all")
OWN_QUESTIONS = 100  # held-out questions of a reader's own data in an evaluation, where nothing else is said
FALCON = "tiiuae/falcon-7b"
FALCON_REVISION = "ec89142b67d748a1865ea4451372db8313ada0d8"


TINY = {"packing": True, "per_device_train_batch_size": 2, "max_length": 512, "max_steps": 8}
TINY |= {"r": 4, "lora_alpha": 8, "evaluation_questions": 2, "max_new_tokens": 8}
SEVEN_BILLION = {
    "packing": True,
    "model": FALCON,
    "revision": FALCON_REVISION,
    "data": GUANACO_ID,
    "max_length": 512,
    "num_train_epochs": 1.0,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant_with_warmup",
    "max_grad_norm": 0.3,
    "evaluation_questions": 40,
    "max_new_tokens": 128,
}
PROFILES: dict[str, dict] = {
    "smoke": {"model": "tiny-llama", **TINY},
    "laptop": {
        "model": EMBEDDED,
        "layers_to_transform": "upper half",
        "r": 32,
        "lora_alpha": 64,
        "learning_rate": 3e-3,
    },
    "colab": {
        **SEVEN_BILLION,
        "quantization": "nf4",
        "minutes": 20.0,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 16,
        "gradient_checkpointing": True,
    },
    "datacenter": {
        **SEVEN_BILLION,
        "minutes": 10.0,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
    },
}


def choose_profile(machine: Machine, hub: Choice) -> Choice:
    """The profile for this machine; hub says whether the Hugging Face Hub answers."""
    if machine.capability is None:
        return Choice("laptop", phrase("no CUDA device: the embedded model trains on a CPU"))
    if not hub.value:
        return Choice(
            "laptop", phrase("the Hub is out of reach ({reason}): the embedded model needs none", reason=hub.reason)
        )
    major, minor = machine.capability
    facts = {"gib": machine.gpu_gib, "major": major, "minor": minor}
    if machine.capability < (8, 0) or machine.gpu_gib < 24:
        return Choice("colab", phrase("one GPU of {gib:.0f} GiB, compute capability {major}.{minor}", **facts))
    return Choice("datacenter", phrase("a GPU of {gib:.0f} GiB, compute capability {major}.{minor}", **facts))


def resolve(
    profile: str = "auto", *, machine: Machine | None = None, hub: Choice | None = None, **overrides: Any
) -> Settings:
    """Settings for this machine.

    profile: a name of PROFILES, or "auto": $FT_PROFILE where it is set, else what this machine can do; for another
    `machine` what that one can do.
    overrides: any field of Settings; None keeps the profile's value. $FT_MODEL overrides the model.
    machine, hub: what to assume instead of looking, for tests and for planning.
    Raises SettingsError for a name or a value that cannot work.
    """
    named = named_profile(profile, here=machine is None)
    machine = machine or this_machine()
    chosen = named or choose_profile(machine, hub or ask_hub(machine))
    given = {name: value for name, value in overrides.items() if value is not None}
    columns = given.get("columns")
    if isinstance(columns, dict) and all(isinstance(name, str) for pair in columns.items() for name in pair):
        given["columns"] = ",".join(f"{meaning}={name}" for meaning, name in columns.items())
    given |= {name: os.fspath(given[name]) for name in ("model", "data") if isinstance(given.get(name), Path)}
    if given.get("init_lora_weights") is True:  # as PEFT spells it
        given["init_lora_weights"] = "default"
    check_values({"no reasons" if name == "reasons" else name: value for name, value in given.items()})
    reasons: dict[str, str] = dict.fromkeys(PROFILES[chosen.value], phrase("profile {name}", name=chosen.value))
    reasons["profile"] = chosen.reason
    settings = Settings(profile=chosen.value, **PROFILES[chosen.value])
    settings, reasons = fit_to_machine(settings, reasons, machine)
    if from_environment := os.environ.get("FT_MODEL"):
        check_values({"model": from_environment})
        settings = replace(settings, model=from_environment)
        reasons["model"] = phrase("the environment variable FT_MODEL")
    settings = replace(settings, **given)
    reasons |= dict.fromkeys(given, SET)
    settings, reasons = own_model(settings, reasons, PROFILES[chosen.value]["model"])
    if settings.data not in OWN_DATA and "evaluation_questions" not in given:
        settings = replace(settings, evaluation_questions=settings.evaluation_questions or OWN_QUESTIONS)
        reasons["evaluation_questions"] = HELD_OUT
    if "attention" not in given:
        kernel = choose_attention(machine, "16" in (settings.autocast or settings.dtype))
        settings, reasons["attention"] = replace(settings, attention=kernel.value), kernel.reason
    if not given.keys() & DIVISION:
        settings, reasons = fit_to_memory(settings, reasons, machine)
    check_settings(settings, machine)
    return replace(settings, reasons=REASONS | reasons)


def own_model(settings: Settings, reasons: dict[str, str], model: str) -> tuple[Settings, dict[str, str]]:
    """The settings of a reader's own model: the commit that is meant, and its own chat template where it has one.

    model: the profile's, which keeps the form of the profile's data.
    """
    (name, wanted), asked = split_name(settings.model), settings.revision if reasons.get("revision") == SET else ""
    if asked and (wanted or not is_hub_name(name)):
        why = tr("a folder or a model of this project has none")
        if wanted:
            why = tr("{name} names {wanted} already", name=name, wanted=wanted)
        raise wrong_value("revision", asked, tr("{why}; leave it out", why=why))
    chosen: dict[str, Any] = {"model": name}
    if is_hub_name(name) and (settings.model != model or asked):
        pin = pinned(name, wanted or asked or "main")
        chosen["revision"], reasons["revision"] = pin
    elif settings.model != model:
        chosen["revision"], reasons["revision"] = "", REASONS["revision"]
    if settings.model == model:
        return replace(settings, **chosen), reasons
    if reasons.get("template") != SET:
        chosen["template"], reasons["template"] = "auto", phrase("the model's own where it has one, else guanaco")
    return replace(settings, **chosen), reasons


def named_profile(profile: str, here: bool = True) -> Choice | None:
    """The profile that the parameter or, for this machine, $FT_PROFILE names; None means: detect it.

    Raises SettingsError for another name.
    """
    reason, asked = SET, profile
    if profile == "auto" and here and (from_environment := os.environ.get("FT_PROFILE")):
        reason, asked = phrase("the environment variable FT_PROFILE"), from_environment
    if wrong := value_fault(asked, str) or one_of(asked, ("auto", *PROFILES)):
        raise wrong_value("profile", asked, wrong)
    return None if asked == "auto" else Choice(asked, reason)


def ask_hub(machine: Machine) -> Choice:
    """Whether the Hub answers; not asked without a GPU, where nothing depends on it."""
    return hub_reachable() if machine.capability else Choice(False, phrase("not asked: there is no GPU"))


def fit_to_machine(settings: Settings, reasons: dict[str, str], machine: Machine) -> tuple[Settings, dict[str, str]]:
    """The profile's settings with device, dtypes and, on a large GPU, the base model's form chosen."""
    device, dtype, autocast = choose_device(machine), choose_dtype(machine), choose_autocast(machine)
    reasons = reasons | {"device": device.reason, "dtype": dtype.reason, "autocast": autocast.reason}
    settings = replace(
        settings,
        device=device.value,
        dtype=str(dtype.value).removeprefix("torch."),
        autocast=str(autocast.value).removeprefix("torch.") if autocast.value else "",
    )
    if settings.profile == "datacenter" and machine.gpu_gib < 40:
        settings = replace(settings, quantization="nf4", gradient_checkpointing=True)
        reasons["quantization"] = phrase(
            "{gpu_gib:.0f} GiB: 4-bit weights leave room for activations", gpu_gib=machine.gpu_gib
        )
    elif settings.profile == "datacenter":
        reasons["quantization"] = phrase(
            "{gpu_gib:.0f} GiB hold 7B in bfloat16, which is faster than unpacking NF4", gpu_gib=machine.gpu_gib
        )
    elif settings.profile == "laptop":
        reasons["layers_to_transform"] = phrase(
            "no backward pass through the lower half; what three seeds learned is within noise"
        )
        reasons["r"] = phrase("half of the layers carry all of it")
        reasons["quantization"] = phrase(
            "135 M parameters fit as they are; on a CPU NF4 answers about ten times slower"
        )
    return settings, reasons


def fit_to_memory(settings: Settings, reasons: dict[str, str], machine: Machine) -> tuple[Settings, dict[str, str]]:
    """The settings with the fastest division of a step that fits into the memory, where the model's shape is known.

    Another model of the Hub keeps the profile's division: its shape is known only after a download.
    """
    known = {FALCON: FALCON_7B, EMBEDDED: SMOLLM2_135M}
    shape = known.get(settings.model) or shape_in(Path(settings.model).expanduser())
    if shape is None:
        return settings, reasons
    batch = choose_batch(shape, settings, machine.usable_gib)
    if batch is None:
        rows = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        advice = phrase("shut down other kernels; then quantization='nf4', a smaller max_length, a smaller model")
        free = {"gib": machine.usable_gib, "advice": advice}
        batch = Batch(1, rows, True, phrase("will hardly fit into the {gib:.1f} GiB that are free: {advice}", **free))
    chosen = {name: getattr(batch, name) for name in sorted(DIVISION)}
    reasons = reasons | {name: REASONS[name] for name in DIVISION}
    both = {"first": REASONS["per_device_train_batch_size"], "second": batch.reason}
    reasons["per_device_train_batch_size"] = phrase("{first}; {second}", **both)
    return replace(settings, **chosen), reasons


def check_settings(settings: Settings, machine: Machine) -> None:
    """Raises SettingsError for values that would fail, or mislead, later on."""
    check_values(settings.as_dict())
    if settings.device == "cpu" and "float16" in (settings.dtype, settings.autocast):
        raise SettingsError(tr("float16 on a CPU is slow and overflows: use dtype='float32', or autocast='bfloat16'."))
    if settings.device == "cuda" and machine.capability is None:
        raise SettingsError(tr("device='cuda', but this machine has no CUDA device: use device='cpu'."))
    wrong = settings.quantization == "fp8" and float8_fault(machine, settings.dtype, settings.autocast)
    if wrong:
        raise SettingsError(tr("quantization='fp8' {wrong}.", wrong=wrong))
    if wrong := init_fault(settings):
        raise SettingsError(wrong)
    if settings.attention == "varlen" and (settings.device == "cpu" or (machine.capability or (0, 0)) < (8, 0)):
        raise SettingsError(
            tr("attention='varlen' needs a GPU of compute capability 8.0: use 'efficient', or 'rows' on a CPU.")
        )
    name = settings.tracking
    if name != "none" and not any(map(can_import, TRACKERS[name])):
        raise SettingsError(
            tr("tracking={name!r} is not installed here: pip install {package}", name=name, package=name)
        )
