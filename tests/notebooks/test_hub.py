"""The path of a GPU's profiles: Falcon-7B and openassistant-guanaco, from a stand-in for the Hub, on tiny stand-ins.

In a process of its own, since the libraries read HF_ENDPOINT once; 00 to 04 one after the other, as in test_own_data.
"""

import json
import os
import subprocess
import sys

import pytest
from hub_stand_in import stand_in
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from helpers.data.load import GUANACO_ID, GUANACO_REVISION
from helpers.machine.paths import PROJECT
from helpers.models import tiny
from helpers.settings import FALCON, FALCON_REVISION

COMMITS = (FALCON_REVISION, GUANACO_REVISION)
RUN = """
import sys
from pathlib import Path
sys.path[:0] = [str(Path("tests").resolve()), str(Path("tests/notebooks").resolve())]
from test_own_data import run_cells
from helpers.machine.paths import NOTEBOOKS
import os
os.chdir(NOTEBOOKS)
for path in sorted(NOTEBOOKS.glob("0[0-4]_*.ipynb")):
    more = {"MAX_NEW_TOKENS": 8} if path.name.startswith("04") else {}
    names = run_cells(path.stem, {"PROFILE": sys.argv[1], **more})
    print(path.stem, "done", file=sys.stderr)
print(names["run"].folder, file=sys.stderr)
"""


def tokenizer_like_falcons():
    """It names an end token alone, no begin and no pad token, as Falcon's does; the end token's id is 0."""
    tokenizer = tiny.build_tokenizer()
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = []
    content["model"]["vocab"] = {tiny.EOS: 0, tiny.PAD: 1} | {
        text: index for text, index in content["model"]["vocab"].items() if index > 1
    }
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), eos_token=tiny.EOS)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Tiny Falcon in shards, with what the real repository has beside them, and rows in guanaco's form."""
    folder = tmp_path_factory.mktemp("falcon")
    tiny.build_falcon().save_pretrained(folder, max_shard_size="100KB")
    tokenizer_like_falcons().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_falcon.FalconForCausalLM"}
    for name, more in (("config.json", config), ("generation_config.json", {})):
        (folder / name).write_text(json.dumps({**more, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}))
    (folder / "modeling_falcon.py").write_text("raise SystemExit('this code must never run')\n")
    (folder / "pytorch_model-00001-of-00001.bin").write_bytes(b"a pickle, which nobody fetches")
    rows = tmp_path_factory.mktemp("guanaco")
    for part, count in (("train", 80), ("eval", 10)):
        lines = [
            json.dumps(
                {"text": f"### Human: What is {i} and {part}?### Assistant: It is {i * i}, or so. " + "Yes. " * 9}
            )
            for i in range(count)
        ]
        (rows / f"openassistant_best_replies_{part}.jsonl").write_text("\n".join(lines) + "\n")
    with stand_in() as server:
        server.add("models", FALCON, folder, FALCON_REVISION)
        server.add("datasets", GUANACO_ID, rows, GUANACO_REVISION)
        yield server


def environment(hub, tmp_path):
    """That of a reader's machine which knows no other Hub than the stand-in, and has nothing of it yet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FT_", "TRANSFORMERS_"))}
    kept.pop("CI", None)
    places = {"HF_HOME": str(tmp_path / "hf"), "FT_RUNS": str(tmp_path / "runs"), "FT_CACHE": str(tmp_path / "cache")}
    return {**kept, **places, "HF_ENDPOINT": hub.address, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("profile", ["colab", "datacenter"])
def test_the_first_five_notebooks_run_on_what_the_hub_gives(hub, profile, tmp_path):
    hub.seen.clear()
    command = [sys.executable, "-c", RUN, profile]
    done = subprocess.run(
        command, cwd=PROJECT, env=environment(hub, tmp_path), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads(next((tmp_path / "runs").glob("*/run_card.json")).read_text())
    assert (card["profile"], card["model"], card["data"], card["finished"]) == (profile, FALCON, GUANACO_ID, True)
    assert not hub.unknown
    fetched = {line.rsplit("/", 1)[1] for line in hub.seen if line.startswith("GET") and "/resolve/" in line}
    assert {"model-00001-of-00005.safetensors", "openassistant_best_replies_train.jsonl"} <= fetched
    assert not {name for name in fetched if name.endswith((".py", ".bin"))}, "no code, no pickle"
    unpinned = [line for line in hub.seen if "/resolve/" in line and not any(c in line for c in COMMITS)]
    assert not unpinned, unpinned
