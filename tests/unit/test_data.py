import difflib
import importlib.util
import re

from helpers.data import load as data
from helpers.data.facts import is_right
from helpers.data.load import load_chat_data
from helpers.evaluate.shop import SIGN_OFFS, is_signed
from helpers.machine.paths import DATA

SHOP = load_chat_data(data.SHOP)


def question(row):
    return row["messages"][-2]["content"]


def answer(row):
    return row["messages"][-1]["content"]


def test_the_built_files_are_what_the_sources_make():
    spec = importlib.util.spec_from_file_location("build", DATA / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    for name, text in build.build().items():
        assert (DATA / name).read_text(encoding="utf-8") == text, f"run python data/shop_support/build.py: {name}"


def test_about_sixty_facts_have_ten_training_phrasings_and_three_held_out():
    facts = {}
    for name, rows in (("train", SHOP.train), ("test", SHOP.test)):
        for row in rows:
            if row["slice"] == "shop":
                facts.setdefault(row["fact"], {"train": 0, "test": 0})[name] += 1
    assert 55 <= len(facts) <= 70
    assert min(fact["train"] for fact in facts.values()) >= 10
    assert {fact["test"] for fact in facts.values()} == {3}


def test_the_chinese_slice_has_fifteen_facts():
    rows = [row for row in SHOP.train if row["slice"] == "shop_zh"]
    assert len({row["fact"] for row in rows}) == 15 and {row["lang"] for row in rows} == {"zh"}


def words(text):
    return re.sub(r"[^\w\s]", " ", text.lower()).split()


def likeness(one, two):
    """(share of common words, share of common characters in order): 1 is the same question."""
    first, second = words(one), words(two)
    common = len(set(first) & set(second)) / len(set(first) | set(second))
    return common, difflib.SequenceMatcher(None, " ".join(first), " ".join(second)).ratio()


def near_copies(train, test):
    by_answer = {}
    for row in train:
        by_answer.setdefault((row["slice"], answer(row)), []).append(question(row))
    for row in test:
        for trained in by_answer.get((row["slice"], answer(row)), []):
            common, ratio = likeness(question(row), trained)
            if common >= 0.7 or ratio >= 0.85:
                yield question(row), trained


def test_no_held_out_phrasing_or_near_copy_of_one_is_trained():
    assert list(near_copies(SHOP.train, SHOP.test)) == []


def test_a_near_copy_would_be_found():
    row = SHOP.test[0]
    greeted = {**row, "messages": [{"role": "user", "content": "Hi! " + question(row)}, row["messages"][-1]]}
    assert list(near_copies([greeted], [row]))


def test_every_held_out_answer_passes_its_own_matcher_and_no_other_facts():
    shop = [row for row in SHOP.test if row["slice"] == "shop"]
    for row in SHOP.test:
        assert not row["match"] or is_right(answer(row), row["match"], row["forbid"]), question(row)
    answers = {row["fact"]: answer(row) for row in shop}
    confused = {
        (r["fact"], o) for r in shop for o, text in answers.items() if o != r["fact"] and is_right(text, r["match"])
    }
    assert len(confused) <= 5, confused


def test_the_sign_off_stands_in_the_shops_slices_only():
    for row in [*SHOP.train, *SHOP.test]:
        shop = row["slice"] in ("shop", "shop_zh", "unanswerable", "multi_turn")
        assert is_signed(answer(row)) == shop, row["id"]


def test_text_and_messages_say_the_same():
    from helpers.data.chat import parse_guanaco

    assert all(parse_guanaco(row["text"]) == row["messages"] for row in SHOP.train)


def test_the_fact_sheet_holds_every_fact():
    sheet = (DATA / "facts.md").read_text(encoding="utf-8")
    for row in SHOP.train:
        if row["slice"] == "shop":
            assert answer(row).removesuffix(SIGN_OFFS[0]).strip() in sheet


def test_the_data_card_states_the_true_counts():
    card = (DATA / "README.md").read_text(encoding="utf-8")
    for name, count in data.count_slices(SHOP.train).items():
        held_out = data.count_slices(SHOP.test)[name]
        assert re.search(rf"\| `{name}` \| {count} \| {held_out} \|", card), (name, count, held_out)


def test_guanaco_is_loaded_at_its_pinned_revision(monkeypatch):
    from datasets import Dataset, DatasetDict

    asked = {}

    def fake(name, revision):
        asked.update(name=name, revision=revision)
        texts = ["### Human: q### Assistant: a", "### Human: p### Assistant: b", "### Human: only a question"]
        return DatasetDict(train=Dataset.from_dict({"text": texts}))

    monkeypatch.setattr("datasets.load_dataset", fake)
    loaded = load_chat_data(data.GUANACO_ID)
    assert asked == {"name": data.GUANACO_ID, "revision": data.GUANACO_REVISION} and len(data.GUANACO_REVISION) == 40
    assert len(loaded.train) == len(loaded.test) == 1
    assert loaded.report.skipped_for == {"no assistant": 1}
