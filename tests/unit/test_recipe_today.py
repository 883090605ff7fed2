"""The program of docs/recipe.md, run as it stands on a tiny Falcon."""

import json
import re

import pytest
import torch

from helpers.data.chat import GUANACO
from helpers.data.load import GUANACO_REVISION, read_own
from helpers.machine.paths import PROJECT
from helpers.models import tiny
from helpers.settings import FALCON_REVISION

PROGRAM = re.search(r"```python\n(.*?)```", (PROJECT / "docs" / "recipe.md").read_text(encoding="utf-8"), re.DOTALL)[1]


def test_the_recipe_names_the_pinned_model_and_data():
    assert FALCON_REVISION in PROGRAM and GUANACO_REVISION in PROGRAM
    lines = [line for line in PROGRAM.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 40, "a page"


@pytest.mark.filterwarnings("default")  # the program has no helper that would mute what is known and harmless
def test_the_recipe_trains_four_bit_layers_on_answers_and_their_ends(tmp_path, monkeypatch, capsys):
    from transformers.models.falcon import modeling_falcon

    monkeypatch.setattr(modeling_falcon, "FalconLinear", modeling_falcon.FalconLinear)  # put back afterwards
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    texts = [json.dumps({"text": row["text"]}) for row in list(read_own("train"))[:24]]
    (folder / "train.jsonl").write_text("\n".join(texts), encoding="utf-8")
    here = PROGRAM.replace('"tiiuae/falcon-7b"', repr(str(tiny.tiny_folder("tiny-falcon"))))
    here = here.replace('"timdettmers/openassistant-guanaco"', repr(str(folder))).replace(
        "STEPS, gpu = 100", "STEPS, gpu = 2"
    )
    assert here.count(str(tmp_path)) == 1 and "STEPS, gpu = 2," in here
    names: dict = {}
    exec(compile(here, "recipe.md", "exec"), names)
    trainer, tokenizer = names["trainer"], names["tokenizer"]
    kinds = {
        type(layer).__name__
        for name, layer in trainer.model.named_modules()
        if name.endswith("query_key_value.base_layer")
    }
    assert kinds == {"Linear4bit"}
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters() if p.requires_grad)
    row = trainer.train_dataset[0]
    trained = [token for token in row["labels"] if token != -100]
    answer = json.loads(texts[0])["text"].partition("### Assistant:")[2]
    assert tokenizer.decode(trained) == answer + tokenizer.eos_token
    assert trainer.state.global_step == 2 and (tmp_path / "falcon-guanaco" / "adapter_model.safetensors").exists()
    messages = names["data"]["train"][0]["messages"]
    ours = tokenizer.apply_chat_template(messages, chat_template=GUANACO, tokenize=False)
    assert tokenizer.apply_chat_template(messages, tokenize=False) == ours, "the same form as in the notebooks"
