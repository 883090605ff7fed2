"""What goes wrong between a reader and the Hub: each ends in one sentence, and nothing half is taken for whole."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from hub_stand_in import stand_in

from helpers.machine.paths import PROJECT
from helpers.models import tiny

COMMIT = "1" * 40
# Loads each model that it is told, once; prints what came of it as JSON. The libraries wait for a second at most.
LOAD = """
import json, sys, time
import huggingface_hub.utils._http as http
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
from helpers.data.load import DataError, load_chat_data
from helpers.models.load import ModelError, load_model
from helpers.settings import resolve
import huggingface_hub.file_download as fetching
import os
get, full = fetching.http_get, os.environ.get("FULL")  # whose files meet a full disk: /dev/full is one
def fetched(url, file, **more):
    return get(url, open("/dev/full", "wb", 0) if full and full in url else file, **more)
fetching.http_get = fetched
said, pinned = {}, {}
for name in sys.argv[1:]:
    try:
        if name.startswith("data:"):
            load_chat_data(name[5:])
        else:
            settings = resolve("smoke", model=name, template="guanaco")
            load_model(settings)
            pinned[name] = [settings.model, settings.revision]
        said[name] = ""
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"
print(json.dumps(pinned))
print(json.dumps(said))
"""
# Files whose last byte comes as another: one can be read all the same, one cannot.
DAMAGED = {
    "train.csv": "question,answer\nWhere is it?,In the box\nWhen is it?,At nine",
    "train.jsonl": '{"question": "Where is it?", "answer": "Here"}\n{"question": "When is it?", "answer": "Now"}',
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    tiny.build_llama().save_pretrained(folder, max_shard_size="100KB")
    tiny.build_tokenizer().save_pretrained(folder)
    with stand_in() as server:
        for name in (
            "gated",
            "private",
            "busy",
            "down",
            "cut",
            "other",
            "blank",
            "small",
            "half",
            "fine",
            "full",
            "slow",
            "short",
        ):
            server.add("models", f"{name}/model", folder, COMMIT)
        server.faults |= {
            "gated/model": 403,
            "private/model": 401,
            "busy/model": 429,
            "down/model": 503,
            "short/model": "short",
        }
        server.faults |= {"cut/model": "breaks", "other/model": "one bit", "blank/model": "zeros"}
        server.faults |= {"slow/model": "slow", "small/model": "config.json", "half/model": "a shard is gone"}
        for name, text in DAMAGED.items():
            rows = tmp_path_factory.mktemp("rows")
            (rows / name).write_text(text)
            server.add("datasets", f"{name.partition('.')[2]}/rows", rows, COMMIT)
            server.faults[f"{name.partition('.')[2]}/rows"] = "one bit"
        for name in ("moving/model", "gpt2"):
            server.add("models", name, folder, COMMIT, ("main", "v1", COMMIT[:7]))
        both = tmp_path_factory.mktemp("both")
        shutil.copytree(folder, both, dirs_exist_ok=True)
        (both / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "secret/base"}))
        server.add("models", "both/model", both, COMMIT)
        yield server


def load(hub, folder, *names, **more):
    """What a process of its own says of each name; folder: of the caches, which the next call may share."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FT_", "TRANSFORMERS_"))}
    places = {"HF_HOME": str(folder / "hf"), "FT_CACHE": str(folder / "cache"), "FT_RUNS": str(folder / "runs")}
    environment = {
        **kept,
        **places,
        "HF_ENDPOINT": hub.address,
        "PYTHONPATH": str(PROJECT),
        "OMP_NUM_THREADS": "1",
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *names], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    load.shown, load.pinned = done.stderr, json.loads(done.stdout.splitlines()[-2])
    return json.loads(done.stdout.splitlines()[-1])


WORDS = {
    "gone/model": "or it is private",
    "private/model": "or it is private",
    "gated/model": "it is gated: accept its terms",
    "busy/model": "too many requests from here: load it again in 1 s",
    "down/model": r"does not work at the moment \(status 503\)",
    "cut/model": "the connection to the Hub ended .*: load it again and it goes on",
    "short/model": "longer or shorter than the Hub says: load it again",
    "data:gone/rows": "or it is private",
}
FULL = ["full/model"] if os.path.exists("/dev/full") else []  # on a disk that is full


@pytest.mark.processes
def test_what_goes_wrong_is_said_in_a_sentence_and_the_next_load_goes_on(hub, tmp_path):
    rows = tuple(f"data:{name.partition('.')[2]}/rows" for name in DAMAGED)
    damaged = ("other/model", "blank/model", "small/model", "half/model", *rows)
    names = [f"{name}@{COMMIT}" for name in (*WORDS, *FULL, *damaged, "fine/model")] + [f"fine/model@{'2' * 40}"]
    said = load(hub, tmp_path, *names, f"slow/model@{COMMIT}", FULL="full/model", TQDM_POSITION="-1")
    if FULL:
        assert re.match("PlaceError: .*no room is left.* Make room there, or set HF_HOME", said[f"{FULL[0]}@{COMMIT}"])
    for name, words in WORDS.items():
        kind = "DataError" if name.startswith("data:") else "ModelError"
        assert re.match(f"{kind}: {name.removeprefix('data:')}.*{words}", said[f"{name}@{COMMIT}"]), said
        assert said[f"{name}@{COMMIT}"].count(". ") == 0, "one sentence"
    assert "not in this version: take a commit from its page" in said[f"fine/model@{'2' * 40}"]
    for name in ("other/model", "blank/model", "small/model", *rows):
        assert "is not what the Hub has, its hash is another" in said[f"{name}@{COMMIT}"]
    assert "config.json" in said[f"small/model@{COMMIT}"]
    assert "one of its files is missing on the Hub (model-00002-of-" in said[f"half/model@{COMMIT}"]
    assert said[f"fine/model@{COMMIT}"] == said[f"slow/model@{COMMIT}"] == ""
    assert re.search(r" [1-9]\d?%\|.*\[00:\d\d<00:\d\d", load.shown), "the library's bar, with the time that is left"

    hub.faults.clear()
    hub.seen.clear()
    again = [f"{name}@{COMMIT}" for name in ("cut/model", "short/model", *damaged, *FULL)]
    assert load(hub, tmp_path, *again) == dict.fromkeys(again, "")
    fetched = [line for line in hub.seen if line.startswith("GET") and "safetensors" in line]
    assert any("other/model" in line for line in fetched), "what was damaged is fetched anew"
    for name in DAMAGED:
        assert any(line.startswith("GET") and line.split("?")[0].endswith(name) for line in hub.seen)
    offline = [f"fine/model@{COMMIT}", f"gated/model@{COMMIT}", f"data:far/rows@{COMMIT}"]
    said = load(hub, tmp_path, *offline, HF_HUB_OFFLINE="1")
    assert "not all in the cache, and the Hub is out of reach" in said[offline[2]]
    assert said[offline[0]] == "" and "not all in the cache, and the Hub is out of reach" in said[offline[1]]


@pytest.mark.processes
def test_a_name_that_moves_is_looked_up_once_and_its_commit_alone_is_loaded(hub, tmp_path):
    hub.seen.clear()
    names = ["moving/model", "moving/model@v1", f"moving/model@{COMMIT[:7]}", "gpt2", "both/model"]
    said = load(hub, tmp_path, *names)
    assert "both/model holds an adapter of secret/base" in said.pop("both/model")
    assert said == dict.fromkeys(names[:-1], "") and set(load.pinned) == set(said)
    assert {(name.partition("@")[0], COMMIT) for name in said} == set(map(tuple, load.pinned.values()))
    assert not [line for line in hub.seen if "secret" in line or "POST" in line]
    fetched = [line for line in hub.seen if "/resolve/" in line]
    looked = "/resolve/main/adapter_config.json"  # transformers 5.15 asks for it and loads nothing
    odd = [line for line in fetched if f"/resolve/{COMMIT}/" not in line and not line.endswith(looked)]
    assert fetched and not odd, odd
    hub.seen.clear()
    assert load(hub, tmp_path, "moving/model") == {"moving/model": ""}
    assert not [line for line in hub.seen if "/revision/main" in line], "its commit is known"
