"""Model cards say what they are of, in YAML that reads back as it was meant, and nothing of this machine."""

from huggingface_hub import ModelCard

from helpers.export.card import adapter_card, merged_card, public_name
from helpers.models.embedded import BASE_MODEL
from helpers.settings import Settings

SETTINGS = Settings(model="./x", data="some/folder/rows | <b>.jsonl", seed=3).as_dict()
CARD = {"steps": 1200, "nll": {"base": 4.0, "tuned": 0.04}, "versions": {"torch": "2.11"}, "last_loss": 0.1234}


def test_names_and_licences_are_quoted():
    card = ModelCard(adapter_card("a: b # c\n- d", SETTINGS, CARD, "CC-BY: 4.0\n# none"))
    assert (card.data.base_model, card.data.license, card.data.library_name) == ("a: b # c\n- d", "other", "peft")
    assert "- licence of the data: CC-BY: 4.0 # none\n" in card.content
    assert "- data: rows &#124; &lt;b>.jsonl" in card.content and "- nll: 0.040 (base 4.000)" in card.content
    assert "- steps: 1,200" in card.content and "- last_loss: 0.123" in card.content


def test_a_merged_models_card_has_what_was_compared():
    card = ModelCard(merged_card(BASE_MODEL, SETTINGS, CARD, added="## Compared\n| a | b |"))
    assert (card.data.license, card.data.pipeline_tag) == ("apache-2.0", "text-generation")
    assert card.content.rstrip().endswith("| a | b |")


def test_a_folder_of_this_machine_is_known_by_its_last_part(tmp_path):
    assert public_name(str(tmp_path / "own")) == "own" and public_name("org/model") == "org/model"


def test_a_name_that_is_markup_or_longer_than_any_file_is_text_in_a_card():
    for name in ("![i](http://x/y.png)", "<script>1</script>", "a\n# H", "`x`", "x" * 300):
        card = ModelCard(
            merged_card(name, SETTINGS | {"data": name, "template": name}, CARD | {"versions": {name: name}})
        )
        assert card.data.base_model == name
        assert not any(markup in card.text for markup in ("](", "<script", "\n# H", "`"))


def test_the_card_says_of_which_step_the_adapter_is_and_why():
    best = {"step": 12, "by": "loss", "value": 0.5, "why": "the best evaluation loss of 9 evaluations, <0.5>"}
    card = ModelCard(adapter_card(BASE_MODEL, SETTINGS, CARD | {"best": best, "stopped_early": "no better in 2"}))
    assert "- the adapter: of step 12, the best evaluation loss of 9 evaluations, &lt;0.5>\n" in card.content
    assert "- stopped early: no better in 2\n" in card.content
    plain = ModelCard(adapter_card(BASE_MODEL, SETTINGS, CARD)).content
    assert "the adapter:" not in plain and "stopped early" not in plain
