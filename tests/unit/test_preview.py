from dataclasses import replace

import pytest
from datasets import Dataset

from helpers.data.labels import as_text, counts, encode
from helpers.machine.hardware import Machine
from helpers.panels.labels import LabelPanel
from helpers.settings import resolve
from helpers.train.preview import batch_of, preview_trainer, row_tokens
from helpers.train.trainer import TrainingError

SMOKE = replace(resolve("smoke", machine=Machine(None, "", 0.0, 8.0, 2, False)), packing=False)
FORMS = {"as they are": SMOKE, "packed": replace(SMOKE, packing=True)}


@pytest.mark.parametrize("form", FORMS)
def test_the_view_is_what_the_collator_makes(tokenizer, rows, form):
    for row in range(len(rows)):
        messages = rows[row]["messages"]
        trainer = preview_trainer(FORMS[form], tokenizer, rows)
        tokens = row_tokens(trainer, {"messages": messages})
        ids, labels = encode(tokenizer, messages)
        assert len(tokens) == len(ids) and counts(tokens)["end"] == 1
        assert sum(t.kind in ("trained", "end") for t in tokens) == sum(label != -100 for label in labels)


def test_another_masking_of_the_collator_is_seen_in_the_view(tokenizer, rows):
    trainer = preview_trainer(SMOKE, tokenizer, rows)
    before, collate = row_tokens(trainer, rows[0]), trainer.data_collator

    def everything(features):
        batch = collate(features)
        batch["labels"] = batch["input_ids"].clone()
        return batch

    trainer.data_collator = everything
    after = row_tokens(trainer, rows[0])
    assert counts(before)["masked"] > 0 and "masked" not in counts(after)
    assert as_text(before) != as_text(after)


def test_turns_that_do_not_fit_are_shown_as_cut(tokenizer):
    turns = [{"role": role, "content": "x" * 20} for role in ("user", "assistant") * 2]
    trainer = preview_trainer(replace(SMOKE, max_length=80), tokenizer, Dataset.from_list([{"messages": turns}]))
    found = counts(row_tokens(trainer, {"messages": turns}))
    assert found["cut"] > 20 and found["end"] == 1
    with pytest.raises(TrainingError, match="does not fit"):
        row_tokens(trainer, {"messages": [*turns[:1], {"role": "assistant", "content": "another"}]})


def test_the_batch_has_the_collator_s_own_columns(tokenizer, rows):
    batch = batch_of(preview_trainer(SMOKE, tokenizer, rows), [0, 1])
    assert {"input_ids", "labels", "position_ids"} <= set(batch) and len(batch["input_ids"]) == 1


def test_the_panel_follows_every_control(tokenizer, rows):
    panel = LabelPanel(SMOKE, tokenizer, rows)
    first = panel.look()
    assert "Is it open?" in first and panel.output.value.count("<span") > 20
    panel.row.value = 1
    assert "pen" in panel.text and panel.text != first
    panel.answers_only.value = False
    assert panel.text.startswith("#[#][#]") and "98% of the tokens" in panel.output.value  # nothing precedes the first
    panel.max_length.value = 16
    assert isinstance(panel.error, TrainingError) and "Raise MAX_LENGTH" in panel.output.value
    panel.max_length.value, panel.packing.value = 256, True
    assert panel.error is None and "[p][e][n]" in panel.text
    assert list(panel.template.options) == ["guanaco"], "a template that the tokenizer cannot write is not offered"


def test_the_panel_shows_markup_as_text(tokenizer):
    hostile = [{"role": "user", "content": "<b>hi</b>"}, {"role": "assistant", "content": "<script>1</script>"}]
    panel = LabelPanel(SMOKE, tokenizer, Dataset.from_list([{"messages": hostile}]))
    panel.look()
    assert "<b>" not in panel.output.value and "<script" not in panel.output.value


def test_the_panel_leaves_the_tokenizer_as_it_was(tokenizer, rows):
    before = tokenizer.chat_template
    LabelPanel(SMOKE, tokenizer, rows).look()
    assert tokenizer.chat_template == before
