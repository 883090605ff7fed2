"""Each family from loading to export, on tiny models; docs/models.md is written from what comes out.

`PYTHONPATH=.:tests python tests/unit/test_families.py` writes the table anew.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import unchecked
from families import FAMILIES, build
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from helpers.data.chat import begin_ids
from helpers.data.load import load_chat_data
from helpers.evaluate.evaluation import evaluate
from helpers.export.errors import ExportError
from helpers.export.gguf import write_gguf
from helpers.export.merge import merge
from helpers.machine.hardware import Machine
from helpers.machine.paths import PROJECT
from helpers.models import attention
from helpers.models.adapter import check_loaded
from helpers.models.load import load_model
from helpers.run import Run
from helpers.settings import resolve
from helpers.train.build import build_trainer, train_or_resume
from helpers.train.preflight import preflight

pytestmark = [pytest.mark.trainings, pytest.mark.filterwarnings("ignore:.*loss_type=None.*")]

TABLE = PROJECT / "docs" / "models.md"
HEAD = (
    "| family | text begins | generation stops at | template | head's loss | attention | stopped and resumed | "
    "merged | GGUF |"
)
TALK = [{"role": "user", "content": "Is it open?"}]
silent = lambda text: None


class StopAfter(TrainerCallback):
    """Ends a training after a step, as an interrupt does."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = control.should_save = state.global_step >= self.step
        return control


def settings_for(folder):
    machine = Machine(None, "", 0.0, 8.0, 2, False)
    settings = resolve("smoke", machine=machine, max_steps=3, model=str(folder), evaluation_questions=2)
    return replace(settings, max_length=256, learning_rate=0.01)


def trained(settings, folder, rows, *callbacks):
    """(run, trainer, loaded) after a training that goes on from what is in the folder."""
    loaded, run = load_model(settings), Run(settings, folder)
    folder.mkdir(exist_ok=True)
    trainer = build_trainer(run, loaded.model, loaded.tokenizer, rows, callbacks=callbacks)
    assert all(check.ok for check in preflight(trainer, report=silent))
    train_or_resume(unchecked(trainer), run, report=silent)
    return run, trainer, loaded


def one_family(family, folder):
    """A row of the table, as its cells; everything in it is asserted or measured on the way."""
    base = build(family, folder / "base")
    settings = settings_for(base)
    rows = load_chat_data(settings.data).train.select(range(12))
    run, trainer, loaded = trained(settings, folder / "run", rows)
    stopped = trained(settings, folder / "stopped", rows, StopAfter(1))[0]
    assert stopped.card()["steps"] == 1
    resumed = trained(settings, folder / "stopped", rows)[0]
    assert resumed.card()["resumed_from"] == 1 and resumed.card()["steps"] == 3
    assert resumed.card()["last_loss"] == pytest.approx(run.card()["last_loss"], rel=1e-3)
    tokenizer, model = loaded.tokenizer, trainer.model
    scores = evaluate(model, tokenizer, [dict(row) for row in rows.select(range(2))], max_new_tokens=4)
    assert len(scores.answers) == 2
    again = PeftModel.from_pretrained(load_model(settings).model, run.adapter).eval()
    assert check_loaded(again, run.adapter).startswith("all ")
    ids = torch.arange(7, 31)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)
    merged = merge(base, run.adapter, folder / "merged", dtype=torch.float32)
    assert merged.agreement.merged < 1e-3 < merged.agreement.adapter
    stops = stops_alike(merged.folder, family)
    begin, own = tokenizer.convert_ids_to_tokens(begin_ids(tokenizer)), bool(family.template)
    return [
        family.name,
        f"with `{''.join(begin)}`" if begin else "with no token",
        ", ".join(f"`{token}`" for token in tokenizer.convert_ids_to_tokens(stops)),
        "its own" if own else "guanaco",
        "at trained positions" if trainer.fast_head else "its own forward pass",
        attention.kernel_of(trainer.model),
        "the same loss",
        f"logits within {1e-3:.1%}",
        gguf_of(merged.folder, folder),
    ]


def stops_alike(folder, family):
    """The end tokens of the merged model in plain transformers, which must be all of the training's, in all places."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ends = model.generation_config.eos_token_id
    assert ends == model.config.eos_token_id == ([1, 5] if family.template else [1])
    ids = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    said = iter([70, 71, ends[-1], 72])

    def head(module, arguments, logits):  # whatever it is asked, it says its last end token as its third token
        forced = torch.full_like(logits, -1.0)
        forced[..., -1, next(said)] = 1.0
        return forced

    model.get_output_embeddings().register_forward_hook(head)
    made = model.generate(**ids, max_new_tokens=4, do_sample=False)
    assert made[0, ids["input_ids"].shape[1] :].tolist() == [70, 71, ends[-1]]
    return ends


def gguf_of(merged, folder):
    """What the writer says of a merged model; a refusal leaves nothing behind."""
    target = folder / "gguf" / "model.gguf"
    try:
        return f"written ({write_gguf(merged, target).stat().st_size > 0 and 'F32, F16, BF16, Q8_0, Q4_0'})"
    except ExportError as error:
        assert not target.exists() and "llama.cpp" in str(error)
        return "by llama.cpp's converter" if "converter" in str(error) else "once its context is its window"


def line(cells):
    return "| " + " | ".join(cells) + " |"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_goes_from_loading_to_export_as_the_table_says(family, tmp_path):
    assert line(one_family(family, tmp_path)) in TABLE.read_text(encoding="utf-8").splitlines()


def test_the_table_has_a_row_for_every_family():
    rows = [row for row in TABLE.read_text(encoding="utf-8").splitlines() if row.startswith("| ")]
    assert rows[0] == HEAD and [row.split(" | ")[0][2:] for row in rows[1:]] == [family.name for family in FAMILIES]


def write_table():
    """The table in docs/models.md, in place of the one that is there."""
    lines = [HEAD, "|" + "---|" * HEAD.count(" |")]
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(line(one_family(family, Path(folder))))
    text = TABLE.read_text(encoding="utf-8")
    before, after = text.split("<!-- table -->\n")[0], text.split("<!-- end of table -->\n")[-1]
    TABLE.write_text(before + "<!-- table -->\n" + "\n".join(lines) + "\n<!-- end of table -->\n" + after, "utf-8")


if __name__ == "__main__":
    sys.exit(write_table())
