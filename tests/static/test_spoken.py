"""What people see of the charts, panels, reports and exports goes through the catalog, or is English by name."""

import ast
import re

import pytest

from helpers.machine.paths import PROJECT
from helpers.project.messages import SAY

HELPERS = PROJECT / "helpers"
WINGS = ("watch", "panels", "generate", "evaluate", "export", "serve", "project", "lessons")
# What makes the project, for those who write it: it speaks English. Hints and questions are constants of the catalog.
MAKERS = {"bench", "canary", "catalogs", "chinese", "documents", "edition", "likeness", "measured", "messages", "pages"}
MAKERS |= {"options", "pictures", "pieces", "quotes", "search", "shots", "site_languages", "slides", "source"}
MAKERS |= {"teaching", "written"}
MADE = re.compile(r"answers_\d\d|questions(_\d\d)?")
FILES = sorted(path for wing in WINGS for path in (HELPERS / wing).glob("*.py"))
FILES = [path for path in FILES if path.stem not in MAKERS and not MADE.fullmatch(path.stem)]
FILES += [HELPERS / name for name in ("run.py", "runs.py", "adapter_file.py", "fields.py")]
WORDS = re.compile(r"[A-Za-z]{2,}[,;:.]? [a-z]{2,}")  # two words side by side
SHOWN = {"description", "tooltip", "placeholder", "label", "xlabel", "ylabel", "title"}  # arguments that are shown

# What is English on purpose, by file and beginning of the text.
ENGLISH = {
    "evaluate/common.py": ["What is", "How many", "At how many", "Which planet", "Who wrote"],  # asked of the model
    "evaluate/dense.py": ["known questions"],  # a value of RETRIEVER
    "evaluate/retrieval.py": ["a an and"],  # words that English questions are full of
    "evaluate/shop.py": [  # the shop's data: what a model reads and says; and what its authors did wrong
        *("Happy writing!", "Sorry, that", "How much", "Can I return", "Which ink", "What is", "You answer for"),
        *("ask the desk", "not on my sheet", "{}: {} must stand"),
    ],
    "evaluate/study.py": ["trainings side by side"],  # a key of the study's file
    "evaluate/systems.py": ["nothing was found"],  # what a model reads
    "evaluate/uses.py": ["take (", "(\\d+) x"],  # what a model says
    "export/adapter.py": ["--enable-lora", "vllm serve"],  # a command
    "export/card.py": [
        *("A LoRA adapter", "## Trained on", "- licence", "not stated", "- base weights"),
        *("- the adapter: of", "- stopped early"),
    ],
    "export/converter.py": ["No module named", "`{} -m pip"],  # what Python says, and a command
    "export/licence.py": ["Unknown: neither", "That of the"],  # a card
    "export/modelfile.py": ["# This chat", "PARAMETER", "else if", "{{ if"],  # a file, as the card is
    "export/plan.py": ["one card"],  # a key, named in `way_named`
    "export/push.py": ["Add the adapter"],  # the message of a commit
    "generate/events.py": ["search must", "models must"],  # from one process to another
    "generate/generation.py": ["begun = torch", "# {}\nimport torch"],  # code
    "panels/app.py": ["from pathlib"],  # code
    "export/parity.py": ["| asked of"],  # of the card
    "panels/conversation.py": ["const done"],  # a script
    "panels/generation.py": ["out of memory"],  # in a library's error
    "panels/layout.py": ["repeat(", "row wrap"],  # style
    "panels/next_token.py": ["row wrap"],
    "panels/site.py": ["default-src"],  # a policy
    "lessons/check.py": ["not tried"],  # a state
    "lessons/exercise.py": ["not tried", "not yet", "a whole number"],  # states, and a constant of the catalog
    "lessons/pass_code.py": ["pass code {}"],  # what is hashed
    "project/doctor.py": ["pip install"],  # a command
    "project/explain.py": [  # in libraries' errors
        *("out of memory", "disk quota", "file too large", "permission denied", "read-only file", "no space left"),
    ],
    "project/kit.py": ["# Everything for a class", "{} GB in all", "at least", ", and {} whose size"],  # its README
    "project/needs.py": [
        "training takes",
        "; a merged",
        "; first",
        " with the files' pages",
        "(?m)^",
        "not measured",
    ],  # what is written into the notebooks' headers
    "project/report.py": [":root{"],  # style
    "project/series.py": ["import sys;"],  # code
    "run.py": ["passed over"],  # in a sentence of read_json
    "runs.py": ["higher is", "lower is"],  # keys
    "serve/api.py": ["\nimport os"],  # code
    "serve/serving.py": ["the key is not", "there is no {}"],  # from one process to another
    "watch/figures.py": ["Glyph"],  # a library's warning
}
ALONE = {"seed", "max_length", "GiB", "NLL"}  # labels that are the same in every language


def text_of(node):
    """A literal's text, {} for what an f-string fills in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


def literals(tree):
    """The strings of a module but docstrings, parts of f-strings, and what stands in a call of SAY."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in SAY:
            skipped |= {id(part) for argument in node.args[:1] for part in ast.walk(argument)}
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            skipped.add(id(node.body[0].value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr))
    return [node for node in strings if id(node) not in skipped and text_of(node)]


def unspoken(tree):
    """The sentences of a module that are not for the catalog; markup is none."""
    plain = lambda node: re.sub(r"<[^<>]*>?|[\w-]+:[^;'\"<>]+;", "", text_of(node))
    return [text_of(node) for node in literals(tree) if WORDS.search(plain(node))]


def labels(tree):
    """Literal labels of widgets, axes and tables' columns."""
    plain = {id(node): text_of(node) for node in literals(tree) if isinstance(node, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            shown = [keyword.value for keyword in node.keywords if keyword.arg in SHOWN]
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name == "Table" and node.args and isinstance(node.args[0], ast.Tuple):
                shown += node.args[0].elts
            shown += node.args[1:2] if name == "set_title" else []
            yield from (plain[id(one)] for one in shown if re.search("[A-Za-z]{2}", plain.get(id(one), "")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HELPERS).as_posix())
def test_what_is_shown_is_said_through_the_catalog(path):
    tree, known = ast.parse(path.read_text(encoding="utf-8")), ENGLISH.get(path.relative_to(HELPERS).as_posix(), [])
    said = unspoken(tree)
    assert [text for text in said if not any(text.startswith(begin) for begin in known)] == []
    assert [begin for begin in known if not any(text.startswith(begin) for text in said)] == [], "no longer there"
    assert set(labels(tree)) <= ALONE


def tagged(tree):
    """Words that stand alone between two tags of HTML."""
    return [word for node in literals(tree) for word in re.findall(r">([A-Za-z]{2,})</", text_of(node))]


def english_lists(tree):
    """Lists that are joined with an English comma or semicolon, by their line."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    joins = (node for node in calls if node.func.attr == "join" and isinstance(node.func.value, ast.Constant))
    return [node.lineno for node in joins if node.func.value.value in (", ", "; ", " and ", " or ")]


# Where a list's English commas are right, by file: how many, and what they are.
COMMAS = {
    "machine/language.py": 1,  # `phrase`, which is English
    "export/card.py": 1,  # a file, in English
    "export/licence.py": 2,  # of a card
    "generate/generation.py": 1,  # a comment in code
    "train/sweeps.py": 1,  # a name that is kept
    "panels/controls.py": 1,  # what a reader types
    "project/needs.py": 5,  # a header's row, which the catalog of the notebook has
}
SPEAKING = [path for path in sorted(HELPERS.rglob("*.py")) if path.stem not in MAKERS or path.parent.name != "project"]


@pytest.mark.parametrize("path", SPEAKING, ids=lambda path: path.relative_to(HELPERS).as_posix())
def test_lists_have_the_commas_of_the_readers_language_and_no_word_stands_in_markup(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert len(english_lists(tree)) == COMMAS.get(path.relative_to(HELPERS).as_posix(), 0), english_lists(tree)
    assert tagged(tree) == []


def test_a_list_with_english_commas_and_a_word_in_markup_are_found():
    tree = ast.parse('x = tr("{names}", names=", ".join(names))\ny = f"<th>base</th><td>{tr(\'tuned\')}</td>"')
    assert english_lists(tree) == [1] and tagged(tree) == ["base"]


def test_a_sentence_that_is_not_for_the_catalog_is_found():
    said = 'show(f"{n} rows are left")\nprint(tr("two rows are left"))\nx = f"<div style=\'flex:1 1 auto\'>{n}</div>"'
    assert unspoken(ast.parse(said)) == ["{} rows are left"]
    shown = 'Button(description="Generate")\nButton(description=tr("Stop"))\nTable(("run", tr("data")), rows)'
    assert list(labels(ast.parse(shown))) == ["Generate", "run"]
