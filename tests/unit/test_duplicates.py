import pytest

from helpers.data.duplicates import digest, near_copies, normalised, pieces_of


def test_normalising_keeps_the_words_of_all_languages():
    assert normalised("  What's  the PRICE?! ") == "what's the price"
    assert normalised("周一，开门吗？") == "周一 开门吗"
    assert normalised("“Hello” (again) ...") == "hello again"
    assert normalised("cafe\u0301") == normalised("café")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("C++", "C#"), ("5 + 3", "5 * 3"), ("5-3", "53"), ("3.5", "35"), ("5!", "5"), ("🙂", "🙁"), ("a/b", "a%b")),
        *(("कि", "की"), ("ก่า", "ก้า"), ("x = 1", "x != 1"), ("50%", "50 €")),
    ],
)
def test_what_names_or_computes_tells_two_texts_apart(one, other):
    assert normalised(one) != normalised(other) and normalised(one)


def test_a_hash_is_the_same_on_every_machine():
    assert digest("Is it open?") == 893189605360834074 and 0 <= digest("") < 2**63


def test_near_copies_are_found_and_others_are_not():
    train = ["How much is standard shipping to Spain?", "Where is my parcel?", "Do you sell ink?"]
    test = ["how much is standard shipping to Spain, please?", "Do you sell pens?", "Where is my parcel?"]
    found = near_copies(train, test)
    assert [(pair.one, pair.other) for pair in found] == [(1, 2), (0, 0)]
    assert found[0].likeness == 1.0 > found[1].likeness >= 0.7


def test_long_texts_are_compared_by_words():
    long = "one two three four five six seven eight nine ten eleven twelve thirteen"
    assert len(pieces_of(long)) == 11
    assert near_copies([long], [long + " fourteen"]) and not near_copies([long], [" ".join(long.split()[::-1])])


def test_near_copies_are_those_that_comparing_all_with_all_would_give():
    import random

    chance = random.Random(0)
    words = [f"w{i}" for i in range(30)]
    texts = [" ".join(chance.choices(words, k=8)) for _ in range(120)]
    changed = [text.replace("w1 ", "w2 ", 1) for text in texts[:60]]
    train, test = texts, changed

    def likeness(one, other):
        first, second = pieces_of(one), pieces_of(other)
        return len(first & second) / len(first | second)

    expected = {j: max(likeness(one, other) for one in train) for j, other in enumerate(test)}
    expected = {j: value for j, value in expected.items() if value >= 0.7}
    assert {pair.other: pair.likeness for pair in near_copies(train, test)} == expected and len(expected) > 20
