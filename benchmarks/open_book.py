"""Does a model that was tuned on passages read? `python benchmarks/open_book.py [--seeds 0 1 2] [--variants JSON]`.

Trains the laptop's model on the shop's rows as they are ("plain"), and on rows that carry passages with several shares,
and asks all held-out questions: without passages, with the right one, and with what a search brings; after twenty facts
changed as well, with no further training. Every figure is a count.
"""

import argparse
import json
import tempfile
from datetime import date
from pathlib import Path

from helpers.data import read_own
from helpers.evaluate.dense import RETRIEVERS, DenseRetriever, GivenRetriever, make_retriever, recall
from helpers.evaluate.open_book import Shares, open_book_rows
from helpers.evaluate.retrieval import read_sheet
from helpers.evaluate.shop import KNOWN, UNKNOWN, edited_rows, edited_sheet, read_edits, sentence
from helpers.evaluate.systems import System, measure, user, with_notes
from helpers.machine.hardware import this_machine
from helpers.machine.paths import DATA, write_json
from helpers.machine.versions import versions
from helpers.models.encoder import load_encoder
from helpers.models.load import load_model
from helpers.settings import resolve
from helpers.train import train_adapter

RESULTS = Path(__file__).resolve().parent / "results"
VARIANTS = {"plain": None, "80/10/10/70": {}}  # right, wrong, none, changed


def searches(sheet: list[str], train: list[dict], encode) -> dict:
    """The retrievers over one sheet, by name; train: shop rows whose sentences stand in it."""
    asked = [(row["messages"][-2]["content"], sentence(row)) for row in train if row["slice"] == KNOWN]
    foreign = [row["messages"][-2]["content"] for row in train if row["slice"] == UNKNOWN and row["lang"] == "en"]
    known = lambda: encode
    return {name: make_retriever(name, sheet, known, asked, foreign) for name in RETRIEVERS}


def right_count(model, tokenizer, rows: list[dict], messages) -> dict:
    """How many are answered right, signed, and refused, of how many."""
    found = measure(System("x", True, messages), model, tokenizer, rows, max_new_tokens=32)
    old = sum(bool(row["forbid"]) and row["forbid"][0] in text for row, text in zip(rows, found.texts, strict=True))
    counts = {"right": sum(found.facts), "signed": sum(found.signed), "refused": sum(found.refused)}
    return {**counts, "old value": old, "of": len(rows)}


def examined(model, tokenizer, held_out: list[dict], train: list[dict], encode) -> dict:
    """All counts of one trained model."""
    shop = [row for row in held_out if row["slice"] == KNOWN]
    unknown = [row for row in held_out if row["slice"] == UNKNOWN]
    general = [row for row in held_out if row["slice"] == "general"]
    sheet, edits = read_sheet(DATA / "facts.md"), read_edits()
    new_sheet, changed = edited_sheet(sheet, train, edits), edited_rows(shop, edits)
    new_train = edited_rows(train, edits)
    others = [row for row in train if row["fact"] not in {edit["fact"] for edit in edits}]
    ask = lambda rows, messages: right_count(model, tokenizer, rows, messages)
    result = {"none": ask(shop, lambda question: [user(question)]), "general": ask(general, lambda q: [user(q)])}
    for name, rows, retrievers in (
        ("", shop, searches(sheet, train, encode)),
        ("changed, ", changed, searches(new_sheet, new_train + others, encode)),
    ):
        given = GivenRetriever({row["messages"][-2]["content"]: sentence(row) for row in rows})
        result[f"{name}given"] = ask(rows, with_notes(given, 1))
        for kind, retriever in retrievers.items():
            for k in (1, 2, 3):
                result[f"{name}{kind}, {k}"] = ask(rows, with_notes(retriever, k))
                if not name:
                    result[f"unknown, {kind}, {k}"] = ask(unknown, with_notes(retriever, k))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=0, help="0: as many as the settings' epochs")
    parser.add_argument("--variants", type=json.loads, default=VARIANTS, help='{"name": {"right": 0.8}}; null: plain')
    parser.add_argument("--with", dest="overrides", type=json.loads, default={}, help="settings by name")
    parser.add_argument("--json", type=Path, default=RESULTS / "open-book.json")
    chosen = parser.parse_args()
    encode, train, held_out = load_encoder(), list(read_own("train")), list(read_own("test"))
    sheet, forbidden = read_sheet(DATA / "facts.md"), [edit["new"] for edit in read_edits()]
    asked = [(row["messages"][-2]["content"], sentence(row)) for row in held_out if row["slice"] == KNOWN]
    found = {name: recall(one, asked, (1, 2, 3, 5)) for name, one in searches(sheet, train, encode).items()}
    content = {"date": str(date.today()), "machine": this_machine()._asdict(), "versions": versions()}
    content |= {"recall": {name: {k: share.percent() for k, share in of.items()} for name, of in found.items()}}
    runs = []
    for seed in chosen.seeds:
        settings = resolve("laptop", seed=seed, **chosen.overrides)
        tokenizer = load_model(settings).tokenizer
        for name, shares in chosen.variants.items():
            rows = train
            if shares is not None:
                near = shares.get("near", 2)
                kept = Shares(**{key: value for key, value in shares.items() if key != "near"})
                rows = open_book_rows(
                    train, DenseRetriever(sheet, encode), forbidden, shares=kept, near=near, seed=seed
                )
            with tempfile.TemporaryDirectory() as folder:
                made = train_adapter(settings, rows, Path(folder) / "run", steps=chosen.steps or -1)
                figures = examined(made.model, tokenizer, held_out, train, encode)
            runs.append({"seed": seed, "variant": name, "seconds": made.seconds, "counts": figures})
            print(name, seed, round(made.seconds), {key: one["right"] for key, one in figures.items()}, flush=True)
            write_json(chosen.json, {**content, "runs": runs})


if __name__ == "__main__":
    main()
