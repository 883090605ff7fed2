"""The questions before a run, by number, with a sentence for each choice. Measured answers are functions of the run."""

import re
from typing import Any

from helpers.lessons.question import Question
from helpers.lessons.questions_07 import SETTINGS
from helpers.machine.language import listed, named, phrase, tr

# Names that notebooks 02, 03 and 06 give what they compare: shown in the reader's language.
NAMES = (
    *(phrase("padded"), phrase("end to end"), phrase("packed")),
    *(phrase("attention only"), phrase("MLP only"), phrase("all linear layers"), phrase("merged")),
)


def largest(shares: dict[str, float]) -> str:
    """The name with the largest number."""
    return max(shares, key=lambda name: shares[name])


def among(*names: str) -> Any:
    """The place of a measured name among these, from 1; 0 where it is none of them."""
    return lambda value: names.index(str(value)) + 1 if str(value) in names else 0


def below(*bounds: float) -> Any:
    """Choice 1 below the first bound, 2 below the second, and so on; the last choice from the last bound on."""
    return lambda value: 1 + sum(value >= bound for bound in bounds)


def kind_of_answer(text: str) -> int:
    """1: an answer with a number in it. 2: one that says that it does not know. 3: anything else."""
    unknown = re.search(r"(don't|do not|not|can't|cannot) (have|know|sure|provide|able)", text, re.IGNORECASE)
    return 2 if unknown else 1 if re.search(r"\d", text) else 3


def percent(value: float) -> str:
    """A share in words."""
    return f"{value:.0%}"


EARLY: dict[str, Question] = {
    "00.dtype": Question(
        "In which format will the weights be stored on this machine?",
        (
            ("float32", "Four bytes a number: what a CPU without special instructions computes fastest."),
            ("float16", "Two bytes, small range: for GPUs older than compute capability 8.0."),
            ("bfloat16", "Two bytes with float32's range: for GPUs from compute capability 8.0 on."),
        ),
        "the row 'dtype', with its reason",
        among("float32", "float16", "bfloat16"),
    ),
    "00.price": Question(
        "What will the model say about the price of a shop that it has never heard of?",
        (
            ("a price", "It continues a text in the likeliest way, and after such a question a price is likely."),
            (
                "that it does not know",
                "It was hardly ever trained to say so; nothing in it marks what it does not know.",
            ),
            ("neither", "A small model often misses the question, and says something fluent beside it."),
        ),
        "the second answer",
        kind_of_answer,
        lambda value: f"'{value.strip()[:80]}'",
    ),
    "01.size": Question(
        "What share of its float32 size will the 4-bit model take?",
        (
            ("an eighth: 4 of 32 bits", "An eighth would need every number in 4 bits; the embedding is left as it is."),
            ("more than an eighth, less than half", "The linear layers shrink to an eighth, the embedding does not."),
            ("more than half", "That is so where the embedding is most of the model, as in a very small one."),
        ),
        "the MiB in the report's sentence",
        below(0.135, 0.5),
        percent,
    ),
    "01.agree": Question(
        "Will the library's block agree with yours?",
        (
            ("to the last digit", "Both take the nearest of the same sixteen levels, with the same scale."),
            ("up to rounding", "The levels are the same; the order of the multiplications may differ."),
            ("only roughly", "Roughly would mean other levels or another scale; both come from the same table."),
        ),
        "the proof cell, which compares all 64 weights",
        below(1e-12, 1e-4),
        lambda value: tr("largest difference {value:.1e}", value=value),
    ),
    "01.falcon": Question(
        "How many of Falcon's linear layers will be 4-bit, as shipped and corrected?",
        (
            ("all, and all", "That is what both models say of themselves: is_loaded_in_4bit is True."),
            ("none, then all", "Falcon's layers are a subclass of nn.Linear, which transformers passes over."),
            ("half, then all", "The rule goes by the class, so it leaves out all of them or none."),
        ),
        "the two counts",
        lambda value: 1 if value[0] == value[2] else 2 if value[0] == 0 and value[1] == value[2] else 3,
        lambda value: tr("{value[0]} as shipped and {value[1]} corrected, of {value[2]}", value=value),
    ),
    "02.kept": Question(
        "How many of these five rows will be kept?",
        (
            ("all five", "An answer of one space teaches nothing, and a copy teaches twice."),
            ("three", "One answer is empty, one row says the same as another; the rest can be used or mended."),
            ("one", "A marker or a stray byte in a text can be mended or made harmless: no reason to lose the row."),
        ),
        "the report, with a reason for each row",
        lambda value: {5: 1, 3: 2, 1: 3}.get(value, 0),
    ),
    "02.end": Question(
        "What would the model learn if the end token stood outside the trained span?",
        (
            ("the same", "A token outside the span carries no loss: nothing tells the model to write it."),
            ("never to stop", "It is never asked to write the end token, so its answers run on."),
            ("to stop at once", "It would have to see the end token as an answer; outside the span it sees none."),
        ),
        "the column 'trained' further down, and exercise 02.3",
        2,
    ),
    "03.memory": Question(
        "Which line of the forecast will be the largest?",
        (
            ("the weights", "Every weight of the base model is in memory, trained or not."),
            ("the adapter with its optimizer", "AdamW keeps two averages, but only of a few percent of the numbers."),
            ("the activations", "What the backward pass needs grows with rows and tokens, not with the model alone."),
            ("another line", "The head's logits, the workspace and what is loaded already have lines, too."),
        ),
        "the table of the forecast",
        lambda value: among("weights", "adapter", "activations")(largest(value)) or 4,
        lambda value: tr("{name}, {gib:.2f} GiB", name=named(largest(value)), gib=max(value.values()) / 2**30),
    ),
    "03.apart": Question(
        "How far apart will the layer by hand and PEFT's layer be?",
        (
            ("not at all, or by rounding", "The same matrices in the same formula: only the order of sums may differ."),
            ("a few percent", "That would mean another scale or another formula."),
            ("far: PEFT does more", "With dropout at 0 there is nothing more: a product is added to the output."),
        ),
        "the printed distance",
        below(1e-4, 0.1),
        lambda value: f"{value:.1e}",
    ),
    "03.five": Question(
        "What happens to the loss of one row that is trained five times?",
        (
            ("it stays about the same", "Each step moves the numbers against the gradient of this very row."),
            ("it falls", "Five updates for one row make its answer likelier each time."),
            ("it rises", "It would with far too large a step; this one is small enough."),
        ),
        "the five printed losses",
        lambda value: 2 if value[-1] < 0.98 * value[0] else 3 if value[-1] > 1.02 * value[0] else 1,
        lambda value: tr("{first:.2f} before, {last:.2f} at the fifth step", first=value[0], last=value[-1]),
    ),
    "03.before": Question(
        "How many of the shop's facts will the base model get right?",
        (
            ("nearly none", "It never saw this shop; a price that fits would be luck."),
            ("about a quarter", "Guessing a price or a number of days hits far less often than that."),
            ("more than half", "That would mean that the facts were in its training data."),
        ),
        "the row 'facts right'",
        below(0.1, 0.5),
        percent,
    ),
    "03.fresh": Question(
        "Will the model with a new adapter answer as it does without?",
        (
            ("yes", "B is zero, so B @ A adds nothing."),
            ("no", "A is random, but it is multiplied by B, and B is zero."),
        ),
        "the value of the next cell, and the proof below it",
        lambda value: 1 if value else 2,
        lambda value: tr("the same answer") if value else tr("another answer"),
    ),
    "03.resume": Question(
        "After a stop: which go on where they were?",
        (
            ("the loss alone", "The loss goes on because the adapter does; the rest is in the checkpoint as well."),
            ("learning rate and loss", "The schedule is kept, and so is the order in which rows come."),
            ("learning rate, order of the rows and loss", "All three are part of a checkpoint."),
        ),
        "exercise 03.4, which compares both curves",
        3,
    ),
}

LATE: dict[str, Question] = {
    "04.stops": Question(
        "Which of the two stops by itself?",
        (
            ("the base model", "It was taught other chats, and has no reason to stop after one sentence."),
            ("the tuned model", "Its training rows all ended with a trained end token."),
            ("both, or neither", "Compare the marks at the ends of the answers."),
        ),
        "the marks at the ends of the answers",
        lambda value: 3 if value[0] == value[1] else 1 if value[0] > value[1] else 2,
        lambda value: tr("{value[0]} answers of the base and {value[1]} of the tuned model stopped", value=value),
    ),
    "04.seeds": Question(
        "Will three seeds give three texts?",
        (
            ("one text, three times", "That is what greedy decoding gives: it draws nothing."),
            ("two or three", "Where many continuations are good, other draws soon lead elsewhere."),
        ),
        "the table of three stories",
        lambda value: 1 if value == 1 else 2,
        lambda value: tr("{n} different texts", n=value) if value > 1 else tr("{n} different text", n=value),
    ),
    "04.flat": Question(
        "At which temperature is the likeliest token hardest to tell from the rest?",
        (
            ("0.5", "Below 1 the logits are stretched: the likeliest stands out more."),
            ("1.0", "At 1 the probabilities are the model's own; a higher temperature flattens them."),
            ("2.0", "Dividing the logits by 2 brings them nearer to each other."),
        ),
        "the three pictures",
        lambda value: among("0.5", "1.0", "2.0")(min(value, key=lambda one: value[one][0])),
        lambda value: listed(tr("{share:.0%} at {one}", share=shares[0], one=one) for one, shares in value.items()),
    ),
    "04.diverge": Question(
        "After how many tokens do the two answers diverge?",
        (
            ("at once: the first or second", "The adapter moves every token, the first as well."),
            ("after three to ten", "Common beginnings such as 'You can' may be shared for some tokens."),
            ("later, or never", "Then both say the same, in the same words."),
        ),
        "the sentence about where they part",
        lambda value: below(2, 10)(value) if value >= 0 else 3,
        lambda value: tr("shared tokens: {n}", n=value) if value >= 0 else tr("they never part"),
    ),
    "05.facts": Question(
        "Which of the five gets most facts right?",
        (
            ("plain base or prompt", "Instructions give style; the facts are in neither."),
            ("RAG", "It is given the fact, when the search finds it, but the base reads badly."),
            ("fine-tuned, with or without RAG", "It learned the facts by heart from many rows."),
        ),
        "the column 'facts right'",
        lambda value: {"plain base": 1, "prompt": 1, "RAG": 2}.get(largest(value), 3),
        lambda value: tr("{name}, {share:.0%}", name=named(largest(value)), share=max(value.values())),
    ),
    "05.cheapest": Question(
        "Which of these reads the shortest prompt, and so costs least to start an answer?",
        (
            ("prompt", "Instructions and examples are read anew before every answer."),
            ("RAG", "It reads instructions, examples and a passage: the longest prompt."),
            ("fine-tuned", "It reads the question alone."),
        ),
        "the column 'prompt'",
        lambda value: among("prompt", "RAG", "fine-tuned")(min(value, key=lambda name: value[name])),
        lambda value: listed(tr("{name} {n:.0f} tokens", name=named(name), n=tokens) for name, tokens in value.items()),
    ),
    "05.search": Question(
        "Which search has the right passage first most often?",
        (
            ("bm25", "It matches words: 'postage' does not find 'shipping'."),
            ("dense", "It matches meanings, but a question is seldom near to its answer."),
            ("both", "Two rankings put together are not better when one is worse."),
            ("known questions", "A question is nearest to a question that was answered before."),
        ),
        "the first column of the table",
        lambda value: among("bm25", "dense", "both", "known questions")(largest(value)),
        lambda value: tr("{name}, {share:.0%}", name=named(largest(value)), share=max(value.values())),
    ),
    "05.lost": Question(
        "Where does RAG lose most of its points?",
        (
            ("in the search", "Then most wrong answers are those for which the passage was not found."),
            ("in the reading", "Then the passage was there, and the model did not use it."),
        ),
        "the rows 'found' and 'not found'",
        lambda value: 1 if value[0] > value[1] else 2 if value[1] > value[0] else 0,
        lambda value: tr("{value[0]} wrong without the passage, {value[1]} with it", value=value),
    ),
    "05.change": Question(
        "Facts change overnight. What will 'fine-tuned + RAG' mostly say?",
        (
            ("the new value: what it reads", "It reads the new sheet, but was never taught to trust a passage."),
            ("the old value: what it learned", "It was trained to answer by heart, and so it does."),
        ),
        "its row in the table of new and old values",
        lambda value: 1 if value[0] > value[1] else 2 if value[1] > value[0] else 0,
        lambda value: tr("{value[0]} new values and {value[1]} old ones", value=value),
    ),
    "05.uses": Question(
        "What does the shop's adapter do to a translation into English, compared with the base?",
        (
            ("it makes it better", "Nothing in the shop's rows teaches translation."),
            ("it hardly changes it, or makes it worse", "It answers as the shop does, whatever is asked."),
        ),
        "the column 'chrF zh-en'",
        lambda value: 1 if value[1] > value[0] + 3 else 2,
        lambda value: tr("chrF {value[0]:.0f} for the base, {value[1]:.0f} with the shop's adapter", value=value),
    ),
    "06.adapter": Question(
        "How large will the adapter's file be?",
        (
            ("under 1 MiB", "A few percent of millions of numbers, four bytes each, is more than that."),
            ("1 to 100 MiB", "Two thin matrices for each adapted layer, in float32."),
            ("as large as the model", "It holds the matrices A and B alone, without the base's weights."),
        ),
        "the size beside adapter_model.safetensors",
        below(1, 100),
        lambda value: f"{value:.2f} MiB",
    ),
    "06.eight": Question(
        "Does the file in 8 bits still give the same answers?",
        (
            ("all the same", "Eight bits move each weight by less than half a percent of its block's largest."),
            ("most, or some", "A near tie between two tokens may turn; then the answers part."),
            ("none", "That would be a damaged file rather than rounding."),
        ),
        "the table of answers",
        lambda value: 1 if value[0] == value[1] else 3 if value[0] == 0 else 2,
        lambda value: tr("{value[0]} of {value[1]} are the same", value=value),
    ),
    "06.curves": Question(
        "How far apart will the curves of one process and of two lie?",
        (
            ("by rounding alone", "The same rows a step and averaged gradients are the same training."),
            ("a little: about 0.01", "A mean of means over rows of different lengths would show like this."),
            ("clearly", "Twice the rows a step would show like this."),
        ),
        "the largest difference of the losses",
        below(1e-3, 0.05),
        lambda value: f"{value:.1e}",
    ),
}

QUESTIONS: dict[str, Question] = EARLY | LATE | SETTINGS
