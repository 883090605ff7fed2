"""A saved tokenizer as the keys of a GGUF file: byte-level BPE. Knows no weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.data.chat import begin_ids
from helpers.export.errors import ExportError
from helpers.machine.language import listed, tr
from helpers.machine.paths import json_in

if TYPE_CHECKING:
    from gguf import GGUFWriter

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # token types, of llama.h
# How text is split before the merges, by the names that llama.cpp has for it (llama-vocab.cpp): patterns of published
# tokenizers. Digits alone, then GPT-2's own pattern; Llama 3 by three digits; Qwen by one.
LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {LETTERS + r"\p{N}{1,3}" + REST: "llama-bpe", LETTERS + r"\p{N}" + REST: "qwen2"}
GENERATION = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")


class Words(NamedTuple):
    """tokens: by id; types: of each; merges: "a b"; split: llama.cpp's name of how text is split; begins: whether the
    tokenizer puts its begin token before every text."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    split: str
    begins: bool


def read_words(folder: Path, vocab_size: int, tokenizer: Any) -> Words:
    """The tokenizer in a folder, its vocabulary filled up to the model's. Raises ExportError for another kind than
    byte-level BPE, and for a way of splitting that llama.cpp has no name for."""
    try:
        content = json_in(Path(folder) / "tokenizer.json")
    except (OSError, ValueError) as error:
        raise ExportError(
            tr("{folder}/tokenizer.json cannot be read ({kind}).", folder=Path(folder).name, kind=type(error).__name__)
        ) from None
    split = split_of(content)
    check_merging(content, split)
    known = {number: token for token, number in content["model"]["vocab"].items()}
    added = {token["id"]: token for token in content.get("added_tokens") or []}
    known |= {number: token["content"] for number, token in added.items()}
    if known and max(known) >= vocab_size:
        raise ExportError(
            tr(
                "the tokenizer has ids up to {most:,}, the model {vocab_size:,} tokens: two models'.",
                most=max(known),
                vocab_size=vocab_size,
            )
        )
    tokens = [known.get(number, f"[PAD{number}]") for number in range(vocab_size)]
    types = [
        UNUSED if number not in known else NORMAL if number not in added
        else CONTROL if added[number].get("special") else USER_DEFINED
        for number in range(vocab_size)
    ]  # fmt: skip
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"].get("merges") or []]
    if not merges:
        raise ExportError(
            tr("the tokenizer has no merges, and llama.cpp reads none without: it is byte-level without BPE.")
        )
    begin = begin_ids(tokenizer)
    if begin not in ([], [tokenizer.bos_token_id]):
        raise ExportError(
            tr(
                "the tokenizer begins texts with {decode!r}; the format knows one token.",
                decode=tokenizer.decode(begin),
            )
        )
    begins = bool(begin)
    return Words(tokens, types, merges, split, begins)


def check_merging(content: dict, split: str) -> None:
    """Raises ExportError where llama.cpp would merge otherwise, or find an added token elsewhere, than the tokenizer.

    It takes a word that is a token as a whole for Llama 3 alone, marks no parts of words, and takes no blanks with a
    token (llama-vocab.cpp).
    """
    own, wide = content["model"], ("lstrip", "rstrip", "single_word")
    odd = [name for name in ("continuing_subword_prefix", "end_of_word_suffix") if own.get(name)]
    odd += ["ignore_merges"] if bool(own.get("ignore_merges")) != (split == "llama-bpe") else []
    odd += [
        tr("{token!r} with {name}", token=one["content"], name=name)
        for one in content.get("added_tokens") or []
        for name in wide
        if one.get(name)
    ]
    if odd:
        raise ExportError(
            tr(
                "llama.cpp reads texts otherwise than this tokenizer ({split}: {names}): name "
                "llama.cpp's folder (--llama-cpp) to use its own converter.",
                split=split,
                names=listed(odd[:3]),
            )
        )


def split_of(content: dict) -> str:
    """llama.cpp's name for how a tokenizer splits texts. Raises ExportError where it has none."""
    kind, before = (content.get("model") or {}).get("type"), content.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = before.get("pretokenizers", [before])
    byte_level = [step for step in steps if step.get("type") == "ByteLevel"]
    others = [step for step in steps if step.get("type") != "ByteLevel"]
    plain = not (content.get("normalizer") or {}).get("normalizers") and (content.get("normalizer") or {}).get(
        "type", "NFC"
    ) in ("NFC", "Sequence")
    if kind == "BPE" and len(byte_level) == 1 and plain and not byte_level[0].get("add_prefix_space"):
        own = byte_level[0].get("use_regex", True)
        if not others and own:
            return "gpt-2"
        if own and [(s.get("type"), s.get("individual_digits")) for s in others] == [("Digits", True)]:
            return "smollm"
        splits = [step for step in others if step.get("type") == "Split" and step.get("behavior") == "Isolated"]
        patterns = [(step.get("pattern") or {}).get("Regex") for step in splits if not step.get("invert")]
        if not own and len(others) == len(patterns) == 1 and patterns[0] in SPLITS:
            return SPLITS[patterns[0]]
    raise ExportError(
        tr(
            "this writer knows byte-level BPE that splits as GPT-2, SmolLM, Llama 3 or Qwen 2 do, "
            "and this tokenizer ({kind}) does not: name llama.cpp's folder (--llama-cpp) to use its "
            "own converter.",
            kind=kind,
        )
    )


def composes_letters(folder: Path) -> bool:
    """Whether a saved tokenizer joins a letter and the accent that follows it (Unicode's NFC) before it splits a text.

    llama.cpp leaves the text as it is (llama-vocab.cpp): the same words in decomposed letters are other tokens there.
    """
    normalizer = json_in(Path(folder) / "tokenizer.json").get("normalizer") or {}
    return "NFC" in [step.get("type") for step in normalizer.get("normalizers", [normalizer])]


def add_tokenizer(writer: GGUFWriter, words: Words, tokenizer: Any, ends: list[int], template: str) -> None:
    """The keys of the tokenizer, its special tokens, and the chat template without the marks of training.

    ends: every end token of the training; the format has room for three: end of text, of turn, of message.
    """
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.split)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    writer.add_token_merges(words.merges)
    writer.add_add_bos_token(words.begins)
    writer.add_add_space_prefix(False)
    if len(ends) > 3:
        raise ExportError(tr("generation stops at {n} tokens, and the format has room for three.", n=len(ends)))
    for add, token in zip(
        (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), ends, strict=False
    ):
        add(token)
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    if template:
        writer.add_chat_template(without_marks(template))


def without_marks(template: str) -> str:
    """The template without {% generation %}: comments in their place, which take the same blanks away.

    Upstream: the tag {% generation %} is transformers' own (utils/chat_template_utils.py); other engines end in a
    syntax error.
    Breaks: a file that no server can chat with. Drift: test_gguf.py::test_plain_jinja_still_does_not_know_the_mark
    """
    return GENERATION.sub(r"{#\1 \2#}", template)
