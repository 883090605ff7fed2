"""A run as a whole model: merged, as GGUF where it is wanted, compared where it is wanted, with its card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from helpers.export.adapter import read_run
from helpers.export.card import merged_card
from helpers.export.errors import ExportError
from helpers.export.files import shared_card
from helpers.export.forms import Form, llama_cpp_form, merged_form, served_form
from helpers.export.gguf import write_gguf
from helpers.export.gguf_tokenizer import composes_letters
from helpers.export.merge import merge
from helpers.export.parity import Parity, Reference, compare_forms, read_questions
from helpers.machine.language import phrase, tr
from helpers.models.embedded import BASE_MODEL
from helpers.settings import EMBEDDED


def export_whole(
    run: Path,
    base: Path,
    target: Path,
    *,
    gguf: str | None = None,
    llama_cpp: str | None = None,
    questions: str | Path | None = None,
    data_licence: str = "",
    forms: dict[str, Form] | None = None,
    report: Callable[[str], None] = print,
) -> Parity | None:
    """Writes base + the run's adapter into `target`, and says what was found; returns the comparison if there is one.

    gguf: a kind of file, llama_cpp: its repository (gguf.write_gguf). questions: a file to compare the exports with
    (parity.json, and a table in the card). forms: further ones to ask, by name. Raises ExportError.
    """
    run, base, target = Path(run), Path(base), Path(target)
    settings, card = read_run(run)
    asked = read_questions(Path(questions)) if questions else []
    done = merge(base, run / "adapter", target)
    facts = {"target": target, "changed": done.changed}
    facts |= {"before": done.base_bytes / 2**20, "after": done.bytes / 2**20}
    report(tr("{target}: {changed} layers changed; {before:,.0f} MiB before, {after:,.0f} MiB now", **facts))
    alone = phrase("not compared with base + adapter: two do not fit here")
    agreement = done.agreement.english if done.agreement else alone
    report(tr(agreement))
    file = None
    if gguf:
        file = write_gguf(target, target / f"model-{gguf}.gguf", gguf, Path(llama_cpp) if llama_cpp else None)
        report(about_gguf(file))
    name = BASE_MODEL if settings["model"] == EMBEDDED else settings["model"]
    head = f"## Compared\n- {agreement}\n"
    described = lambda table: merged_card(name, settings, card, data_licence, head + table, base)
    shared_card(target, described(""))  # before the questions: whatever becomes of them, the folder has a card
    if not asked:
        return None
    parity = compared(base, run / "adapter", target, file, asked, forms or {}, report)
    shared_card(target, described(f"\n{parity.table()}\n"))
    return parity


def about_gguf(file: Path) -> str:
    """What is said of a GGUF file that lies in the folder which it was made of."""
    size = tr("{file}: {value:,.0f} MiB, with a Modelfile for Ollama", file=file, value=file.stat().st_size / 2**20)
    if not composes_letters(file.parent):
        return size
    joined = tr("its tokenizer joins letters and accents (NFC), llama.cpp does not: send it texts in that form")
    return f"{size}\n{joined}"


def missing(package: str) -> NoReturn:
    """Raises ExportError for a form that a Python package would ask."""
    raise ExportError(tr("not asked: pip install {package}, and export again", package=package))


def compared(
    base: Path,
    adapter: Path,
    target: Path,
    file: Path | None,
    questions: list[str],
    forms: dict[str, Form],
    report: Callable[[str], None],
) -> Parity:
    """Asks every form, writes parity.json, and says the table. What cannot be asked has a row with the reason."""
    reference = Reference(base, adapter)
    asked: dict[str, Form | Callable[[], Form]] = {
        phrase("merged, in transformers"): lambda: merged_form(target),
        **forms,
        phrase("merged, in transformers serve"): lambda: served_form(target) or missing("openai"),
    }
    if file and not any("GGUF" in name for name in forms):
        spoken = lambda: llama_cpp_form(file, reference.tokenizer) or missing("llama-cpp-python")
        asked[phrase("GGUF, in llama.cpp")] = spoken
    parity = compare_forms(reference, asked, reference.turns(questions))
    parity.save(target / "parity.json")
    report(str(parity.shown()))
    return parity
