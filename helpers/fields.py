"""A run's settings as data: their names, types and limits. Chooses none of them, and loads no library."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from helpers.limits import CHOICES, LIMITS
from helpers.machine.language import tr
from helpers.machine.paths import DATA
from helpers.machine.tables import Table
from helpers.machine.values import (
    home_fault,
    in_short,
    layers_fault,
    long_part,
    near,
    one_of,
    text_fault,
    value_fault,
)

EMBEDDED = "embedded"


class SettingsError(ValueError):
    """A setting cannot work; the message names it, the value and what can."""


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on. Lengths are in tokens; dtypes are names ("bfloat16") or "" for none."""

    profile: str = "laptop"
    model: str = EMBEDDED
    revision: str = ""
    data: str = DATA.name  # helpers.data.SHOP
    data_format: str = ""  # a name of formats.FORMATS; "": what the columns say
    columns: str = ""  # the reader's own names of columns: "question=ask,answer=reply"
    template: str = "guanaco"  # or "chatml", or "model": the tokenizer's own; "auto": that one where there is one
    thinking: str = "trained"  # of rows that have some; or "left out"
    quantization: str = "none"  # "nf4", "fp8" or "none"
    device: str = "cpu"
    dtype: str = "float32"  # of weights that are not quantized, and of the 4-bit compute
    autocast: str = ""  # mixed precision in training
    attention: str = "sdpa"  # kernel for packed rows and all others, see helpers/models/attention.py
    max_length: int = 256
    packing: bool = False
    assistant_only_loss: bool = True
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    num_train_epochs: float = 1.25
    max_steps: int = -1  # -1: as many as num_train_epochs make
    minutes: float = 0.0  # of training and its evaluations, into which the steps must fit; 0: no such limit
    learning_rate: float = 2e-3
    lr_scheduler_type: str = "linear"
    warmup_steps: float = 0.03  # below 1: a share of all steps
    max_grad_norm: float = 1.0
    early_stopping: int = 0  # evaluations without improvement after which it stops; 0: never
    early_stopping_threshold: float = 0.0  # an improvement is more than this, in nats or as a share
    keep_best: bool = False  # the adapter that is saved is that of the best evaluation
    best_by: str = "loss"  # or "fact_accuracy", of the held-out rows that are watched
    r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    target_modules: str = "all-linear"
    layers_to_transform: str = "all"  # or "upper half"
    use_rslora: bool = False  # LoRA's scale is lora_alpha / sqrt(r) then, not lora_alpha / r
    use_dora: bool = False  # a weight's size is trained apart from its direction
    init_lora_weights: str = "default"  # how A and B begin: a name of INITS
    evaluation_questions: int = 0  # of each slice; 0: all
    max_new_tokens: int = 64  # of an answer in the evaluation
    seed: int = 0
    tracking: str = "none"  # or "tensorboard", "trackio": files on this machine
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    def table(self) -> str:
        """Every setting, its value and its reason, as aligned text."""
        rows = [(f.name, str(getattr(self, f.name)) or '""') for f in fields(self) if f.name != "reasons"]
        width, value_width = (max(len(row[i]) for row in rows) for i in (0, 1))
        return "\n".join(f"{n:{width}}  {v:{value_width}}  {tr(self.reasons.get(n, ''))}".rstrip() for n, v in rows)

    def shown(self, *names: str) -> Table:
        """The settings that are named, with their reasons; all others folded below them."""
        every = [f.name for f in fields(self) if f.name != "reasons"]
        row = lambda name: (name, f"{getattr(self, name)}" or '""', tr(self.reasons.get(name, "")))
        rest = [row(name) for name in every if name not in names]
        words = tr("the other {n} settings", n=len(rest))
        return Table((tr("setting"), tr("value"), tr("why")), [row(name) for name in names], rest, words)

    def as_dict(self) -> dict:
        """The settings as plain values, for JSON."""
        return asdict(self)


def check_values(content: dict[str, Any]) -> None:
    """Raises SettingsError unless every name is a setting's and every value of its type and within its limits."""
    kinds: dict[str, Any] = {f.name: f.type for f in fields(Settings)}
    for name, value in content.items():
        if name not in kinds:
            raise SettingsError(tr("no such setting: {name}{near}.", name=str(name)[:80], near=near(name, kinds)))
        if name != "reasons" and (wrong := setting_fault(name, value, kinds[name])):
            raise wrong_value(name, value, wrong)


def setting_fault(name: str, value: Any, kind: type) -> str:
    """What is wrong with a setting's value, with what it can be; "" for nothing. kind: str, int, float or bool."""
    wrong = value_fault(value, kind, LIMITS.get(name))
    if wrong or name in CHOICES:
        return wrong or one_of(value, CHOICES[name])
    if kind is not str:
        return ""
    if not value.strip():
        return tr("it is empty") if value or name in ("model", "data", "target_modules") else ""
    if name == "columns":
        from helpers.data.load import columns_fault

        return text_fault(name, value) or columns_fault(value)
    return (
        text_fault(name, value) or long_part(value) or (layers_fault if name == "target_modules" else home_fault)(value)
    )


def wrong_value(name: str, value: Any, wrong: str) -> SettingsError:
    """The error for a setting's value: its name, the value in short, what is wrong, and what can be."""
    hint = tr("; LoRA wants 1e-4 to 4e-3") if name == "learning_rate" else ""
    return SettingsError(tr("{name}={shown}: {wrong}{hint}.", name=name, shown=in_short(value), wrong=wrong, hint=hint))
