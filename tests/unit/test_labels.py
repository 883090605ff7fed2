from helpers.labels import as_html, as_text, counts, label_tokens, summarize_lengths


def label(tokenizer, text, trained_from, max_length=None):
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    labels = [-100] * trained_from + ids[trained_from:]
    return label_tokens(tokenizer, ids, labels, max_length)


def test_each_token_is_named_by_what_happens_to_it(tokenizer):
    assert counts(label(tokenizer, "abcdef", 3)) == {"masked": 3, "trained": 3, "end": 1}
    assert counts(label(tokenizer, "abcdef", 3, max_length=5)) == {"masked": 3, "trained": 2, "cut": 2}


def test_the_text_form_tells_the_kinds_apart_without_colour(tokenizer):
    assert as_text(label(tokenizer, "abc", 1)) == "a[b][c]<<eos>>"
    assert as_text(label(tokenizer, "abc", 1, max_length=2)) == "a[b]~c~~<eos>~"


def test_markup_in_the_data_is_shown_and_not_rendered(tokenizer):
    page = as_html(label(tokenizer, "<img src=x onerror=alert(1)>&", 2))
    assert "<img" not in page and "&lt;" in page and "&amp;" in page


def test_a_cut_answer_without_trained_token_is_counted(tokenizer):
    rows = [([1] * 10, [-100] * 8 + [1, 1]), ([1] * 4, [-100, 1, 1, 1]), ([1] * 10, [-100] * 4 + [1] * 6)]
    assert summarize_lengths(rows, 6) == (3, 10, 2, 1)
