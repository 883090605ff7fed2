"""What a setting may be: the names to choose from, the bounds of numbers. Knows no values."""

from typing import Any

from helpers.machine.inits import INITS
from helpers.machine.language import phrase, tr
from helpers.machine.memory import LAYERS
from helpers.machine.values import Limits, home_fault, layers_fault, long_part, one_of, text_fault, value_fault

TRACKERS = {"none": (), "tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",)}  # packages, one of
KERNELS = ("varlen", "efficient", "rows", "sdpa", "eager")  # of attention; the first three are this project's
THINKING = ("trained", "left out")
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt", "polynomial")  # transformers' own
PROOFS = (  # rows of the preflight, as train/preflight.py has them
    *(phrase("quantized"), phrase("end tokens"), phrase("human tokens"), phrase("begin and end"), phrase("isolated")),
    *(phrase("loss"), phrase("gradient"), phrase("kernel"), phrase("adapter")),
)
CHOICES = {
    "profile": ("smoke", "laptop", "colab", "datacenter"),  # settings.PROFILES, which loads more
    "template": ("auto", "model", "guanaco", "chatml"),  # data/chat.py, which loads more
    "quantization": ("nf4", "fp8", "none"),
    "device": ("cpu", "cuda"),
    "dtype": ("float32", "bfloat16", "float16"),
    "autocast": ("", "bfloat16", "float16"),
    "attention": KERNELS,
    "layers_to_transform": LAYERS,
    "init_lora_weights": INITS,
    "best_by": ("loss", "fact_accuracy"),
    "thinking": THINKING,
    "tracking": tuple(TRACKERS),
    "lr_scheduler_type": SCHEDULES,
}
LIMITS = {  # far beyond what makes sense, and short of what no machine can allocate
    "max_length": Limits(1, 2**20),
    "per_device_train_batch_size": Limits(1, 2**14),
    "gradient_accumulation_steps": Limits(1, 2**14),
    "num_train_epochs": Limits(0, 100_000, above=True),
    "max_steps": Limits(-1, 1e9),
    "minutes": Limits(0, 1e5),
    "learning_rate": Limits(0, 10, above=True),
    "warmup_steps": Limits(0, 1e9),
    "max_grad_norm": Limits(0, 1e9),
    "early_stopping": Limits(0, 1e6),
    "early_stopping_threshold": Limits(0, 100),
    "r": Limits(1, 4096),
    "lora_alpha": Limits(1, 2**20),
    "lora_dropout": Limits(0, 0.99),
    "evaluation_questions": Limits(0, 1e9),
    "max_new_tokens": Limits(1, 2**17),
    "seed": Limits(0, 2**32 - 1),
}


def setting_fault(name: str, value: Any, kind: type) -> str:
    """What is wrong with a setting's value, with what it can be; "" for nothing. kind: str, int, float or bool."""
    from helpers.data.formats import FORMATS
    from helpers.data.load import columns_fault

    wrong = value_fault(value, kind, LIMITS.get(name))
    if wrong or name in CHOICES:
        return wrong or one_of(value, CHOICES[name])
    if kind is not str:
        return ""
    if not value.strip():
        return tr("it is empty") if value or name in ("model", "data", "target_modules") else ""
    if name == "data_format":
        return one_of(value, FORMATS)
    more = {"target_modules": layers_fault, "columns": columns_fault}.get(name, home_fault)
    return text_fault(name, value) or ("" if name == "columns" else long_part(value)) or more(value)
