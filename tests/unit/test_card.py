"""Model cards say what they are of, in YAML that reads back as it was meant, and nothing of this machine."""

import pytest
from huggingface_hub import ModelCard

from helpers.export.card import adapter_card, merged_card, public_name
from helpers.models.embedded import BASE_MODEL
from helpers.settings import Settings

SETTINGS = Settings(model="./x", data="some/folder/rows | <b>.jsonl", seed=3).as_dict()
CARD = {"steps": 1200, "nll": {"base": 4.0, "tuned": 0.04}, "versions": {"torch": "2.11"}, "last_loss": 0.1234}


def test_names_and_licences_are_quoted():
    card = ModelCard(adapter_card("a: b # c\n- d", SETTINGS, CARD, "CC-BY: 4.0\n# none"))
    assert (card.data.base_model, card.data.license, card.data.library_name) == ("a: b # c\n- d", "unknown", "peft")
    assert "\nUnknown: neither the base model's card nor its config.json" in card.content
    assert "- licence of the data: CC-BY: 4.0 # none\n" in card.content
    assert "- data: rows &#124; &lt;b>.jsonl" in card.content and "- nll: 0.040 (base 4.000)" in card.content
    assert "- steps: 1,200" in card.content and "- last_loss: 0.123" in card.content


def test_a_merged_models_card_has_what_was_compared():
    card = ModelCard(merged_card(BASE_MODEL, SETTINGS, CARD, added="## Compared\n| a | b |"))
    assert (card.data.license, card.data.pipeline_tag) == ("apache-2.0", "text-generation")
    assert card.content.rstrip().endswith("| a | b |")


def card_of(base, **settings):
    return ModelCard(adapter_card(str(base), SETTINGS | {"model": str(base), **settings}, CARD))


HOSTILE = "x](http://a) <script>|\\n# H\\n" + "y" * 500


@pytest.mark.parametrize(
    ("head", "short", "said"),
    [
        ("license: gemma", "gemma", "That of the base model: gemma."),
        ("license:\n- mit\n- apache-2.0", "other", "other (mit, apache-2.0)."),
        ("license: other\nlicense_name: own-1\nlicense_link: http://x/y", "other", "other (own-1, http://x/y)."),
        (f'license: "{HOSTILE}"', "other", "other (x&#93;(http://a) &lt;script>&#124; # H yyy"),
        ("license: {a: 1}", "unknown", "Unknown: "),
        ("license: 3", "unknown", "Unknown: "),
        ("license: [", "unknown", "Unknown: "),
        ("tags: [x]", "unknown", "Unknown: "),
        ("license: *a", "unknown", "Unknown: "),
        ("x: " + "[" * 20_000, "unknown", "Unknown: "),
    ],
)
def test_the_licence_is_that_of_the_base_models_own_card(tmp_path, head, short, said):
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\nlicense: mit\n")
    card = card_of(tmp_path)
    assert card.data.license == short and said in card.text.partition("## Licence")[2]
    assert "\n# H" not in card.text and "<script" not in card.text and len(card.text) < 2000


def test_without_a_card_the_configuration_may_name_the_licence(tmp_path):
    (tmp_path / "config.json").write_text('{"license": "mit"}')
    assert card_of(tmp_path).data.license == "mit"
    (tmp_path / "config.json").write_text("[")
    assert card_of(tmp_path).data.license == "unknown"


def test_a_card_that_is_a_link_to_somewhere_else_is_not_read(tmp_path):
    (tmp_path / "elsewhere").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").symlink_to(tmp_path / "elsewhere")
    assert card_of(tmp_path / "base").data.license == "unknown"


def test_of_a_model_of_the_hub_the_card_in_the_cache_counts(tmp_path, monkeypatch):
    from huggingface_hub import constants

    commit, hub = "a" * 40, tmp_path / "models--org--own"
    (hub / "snapshots" / commit).mkdir(parents=True)
    (hub / "snapshots" / commit / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert card_of("org/own", revision=commit).data.license == "cc-by-4.0"
    assert card_of("org/own", revision="b" * 40).data.license == "unknown"
    assert card_of("tiiuae/falcon-7b").data.license == "apache-2.0"


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
