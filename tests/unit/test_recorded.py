"""Batches laid into the forms of recordings; what a recording computes is in tests/gpu."""

import pytest
import torch

from helpers.data.packing import find_documents
from helpers.train.recorded import LENGTHS, STARTS, FixedForm, RecordedDecoder, difference, laid_out


def packed(*lengths):
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return {"input_ids": torch.arange(1, positions.shape[1] + 1)[None], "position_ids": positions}


@pytest.fixture
def decoder(tiny_llama):
    return RecordedDecoder(tiny_llama, longest=48, report=lambda text: None)


@pytest.mark.parametrize("lengths", [(40, 30, 48), (48, 48, 32), (5,), (48,) * 9])
def test_a_batch_keeps_its_tokens_and_documents_and_padding_makes_documents_of_its_own(decoder, lengths):
    inputs = packed(*lengths)
    total = sum(lengths)
    form = decoder.form(total, len(lengths) + 1)
    assert form.tokens % LENGTHS == 0 and total <= form.tokens < total + LENGTHS and form.starts % STARTS == 0
    ids, positions, starts = laid_out(inputs, form, 48)
    assert ids.shape == positions.shape == (1, form.tokens) and len(starts) == form.starts
    assert torch.equal(ids[:, :total], inputs["input_ids"]) and torch.equal(
        positions[:, :total], inputs["position_ids"]
    )
    assert torch.equal(starts[: len(lengths) + 1], find_documents(inputs["position_ids"]).starts)
    assert int(starts.diff().max()) <= 48 and starts[-1] == form.tokens and starts.diff().min() >= 0


def test_a_batch_goes_into_a_recording_that_it_nearly_fills(decoder):
    decoder.recorded = {FixedForm(512, 64): None, FixedForm(1024, 64): None}
    assert decoder.form(500, 10) == FixedForm(512, 64) and decoder.form(1000, 10) == FixedForm(1024, 64)
    assert (
        decoder.form(400, 10) == FixedForm(512, 64) or decoder.form(400, 10).tokens == 512
    )  # its own form is of this length
    assert decoder.form(700, 10) == FixedForm(768, 64), "more than a few percent of padding is another recording"
    assert decoder.form(500, 64) == FixedForm(512, 128), "there must be room for all documents"


def test_in_evaluation_and_without_gradients_nothing_is_recorded(decoder):
    decoder.model.train()
    with torch.no_grad():
        assert decoder(packed(9)) is None
    decoder.model.eval()
    assert decoder(packed(9)) is None and not decoder.seen


def test_a_length_is_recorded_after_it_came_twice_and_while_enough_steps_are_left(decoder, monkeypatch):
    made = []
    monkeypatch.setattr(decoder, "record", lambda form, given, tokens: bool(made.append((form, tokens))))
    decoder.model.train()
    for more in (True, True, False):
        assert decoder(packed(9, 30), more) is None and not made
    assert decoder(packed(9, 30)) is None and made == [(FixedForm(LENGTHS, STARTS), 39)]


def test_what_differs_from_the_eager_pass_is_said():
    own = torch.ones(4), torch.ones(3)
    assert difference(own, own) == ""
    assert "hidden states" in difference(own, (torch.ones(4) * 1.1, own[1]))
    assert "gradients" in difference(own, (own[0], torch.tensor([1.0, float("nan"), 1.0])))


def test_after_a_full_memory_smaller_batches_are_recorded_once_more(decoder, monkeypatch):
    made = []
    monkeypatch.setattr(decoder, "record", lambda form, given, tokens: bool(made.append(tokens)))
    decoder.model.train()
    for expected in ([39], []):
        decoder.recorded, decoder.pool = {FixedForm(512, 64): None}, "of the larger ones"
        decoder.start_over("the memory was full")
        assert not decoder.recorded and (decoder.pool is None or expected == [])
        made.clear()
        for _ in range(3):
            assert decoder(packed(9, 30)) is None
        assert made == expected, "a second time the recordings themselves are too much"


def test_once_forgotten_every_pass_is_eager(decoder):
    decoder.recorded = {FixedForm(512, 64): None}
    decoder.forget("the memory was full")
    assert not decoder.recorded and decoder.how == "the memory was full"
    decoder.model.train()
    assert decoder(packed(9)) is None and not decoder.seen
