"""What a setting may be: the names to choose from, the bounds of numbers. Knows no values."""

from helpers.machine.inits import INITS
from helpers.machine.language import phrase
from helpers.machine.memory import LAYERS
from helpers.machine.values import Limits

TRACKERS = {"none": (), "tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",)}  # packages, one of
KERNELS = ("varlen", "efficient", "rows", "sdpa", "eager")  # of attention; the first three are this project's
THINKING = ("trained", "left out")
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt", "polynomial")  # transformers' own
PROOFS = (  # rows of the preflight, as train/preflight.py has them
    *(phrase("quantized"), phrase("end tokens"), phrase("human tokens"), phrase("begin and end"), phrase("isolated")),
    *(phrase("loss"), phrase("gradient"), phrase("kernel"), phrase("adapter")),
)
FORMATS_OF_ROWS = ("messages", "sharegpt", "alpaca", "prompt_completion", "question_answer", "preference", "guanaco")
CHOICES = {
    "data_format": ("", *FORMATS_OF_ROWS),  # data/formats.py, which loads more
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
