"""Models: loading them with proof of what was loaded, attention, norms, LoRA, Falcon's corrections, tiny models.

Knows of data the templates, the ends of answers, the lengths of rows and where documents lie in a batch; no trainer,
and nothing of answers.
"""

from helpers.models.adapter import check_loaded
from helpers.models.encoder import encoder_folder, load_encoder
from helpers.models.forecast import forecast_memory
from helpers.models.lengths import fit_to_data
from helpers.models.load import body_linears, inspect_model, load_model, load_tokenizer
from helpers.models.lora import lora_config
from helpers.models.source import ModelError, base_folder, locate
from helpers.models.wheels import WheelError

__all__ = [
    "ModelError",
    "WheelError",
    "base_folder",
    "body_linears",
    "check_loaded",
    "encoder_folder",
    "fit_to_data",
    "forecast_memory",
    "inspect_model",
    "load_encoder",
    "load_model",
    "load_tokenizer",
    "locate",
    "lora_config",
]
