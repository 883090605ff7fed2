"""What the main path shows goes through the catalog: no sentence of it stands bare in code, but those named here."""

import ast
import re
import string

import pytest

from helpers.machine.paths import PROJECT
from helpers.project.messages import SAY

WINGS = ("machine", "data", "models", "train")
ALONE = ("settings.py", "fields.py", "reasons.py", "limits.py", "adapter_file.py", "colab.py", "adapted.py")
ALONE += ("behaviour.py", "project/doctor.py")
MODULES = [path for wing in WINGS for path in sorted((PROJECT / "helpers" / wing).glob("*.py"))]
MODULES += [PROJECT / "helpers" / name for name in ALONE]
FIELDS = string.Formatter().parse
SENTENCE = re.compile(r"[A-Za-z]{2,}[,;:]? [A-Za-z`'\[({]")

WORDS = ("an object instead of text", "another schema", "no answer", "no question", "not used: the row", "a tool call")
# English on purpose: by module, the beginnings of the texts.
ENGLISH = {
    # What libraries say, and is looked for in their words.
    "machine/hub": ("Consistency check",),
    "machine/hardware": ("out of memory", "can't allocate memory", "not enough memory"),
    "machine/paths": ("No space left", "Read-only file system"),
    "machine/quiet": (
        *(r"`(is_)?gradient_checkpointing\w*` is deprecated", "TRL passes the old name; both do the same"),
        *("Failed to load CPU gemm_4bit_forward", "an optional package is absent"),
    ),
    "models/source": (
        "the library that reads its tokenizer broke down",
        "Unrecognized configuration",
        "Multiple valid text configs",
        "custom code",
        "size mismatch",
    ),
    "train/recorded": ("The AccumulateGrad node's stream",),
    "data/json_values": ("trailing comma", "property name"),
    # Values of settings, and names in files: keys, columns, templates.
    "machine/memory": ("upper half",),
    "settings": ("upper half", "no reasons"),
    "limits": ("left out",),
    "train/build": ("content of the data",),
    "data/columns": ("{} (by name)", "{} (the rest)"),
    "data/layouts": ("mapping (other branches)",),
    "data/turns": ("{}[].content[] of thinking",),
    "data/labels": ("rows without end token", "border-bottom", "<span style="),
    "data/templated": (
        *("Zephyr or Phi-3", "(?:(?<=", "Command R", "Human and Assistant", "Q and A", "function response"),
    ),
    "data/chat": ("{% for message in messages %}",),
    "machine/tables": ("<th scope=", "<td ", "every row needs"),
    "project/doctor": ("VS Code", "pip install -c constraints.txt"),
    # Phrases that are compared in their English, and probes that a template is given.
    "data/advice": ("a short answer",),
    "data/formats": WORDS,
    "data/load": WORDS,
    "data/recognition": WORDS,
    "data/rendering": (*WORDS, "probe ", "the template "),
    # For those who start processes: the training's own words follow.
    "machine/processes": ("the training failed:",),
}


def parts(node):
    """The text of a string, or of an f-string with its fields left out."""
    if isinstance(node, ast.Constant):
        return node.value
    return "".join(one.value if isinstance(one, ast.Constant) else "{}" for one in node.values)


def documentation(tree):
    """The docstrings of a module, and strings that stand alone."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def taken(tree):
    """What the catalog's functions take by its text, and constants inside of f-strings, which are seen with them."""
    ids = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAY:
            ids |= {id(one) for one in node.args[: SAY[node.func.id]]}
        elif isinstance(node, ast.JoinedStr):
            ids |= {id(one) for one in node.values}
            ids |= {id(one.format_spec) for one in node.values if isinstance(one, ast.FormattedValue)}
    return ids


def untold(source):
    """The sentences in a module's code that no catalog has."""
    tree = ast.parse(source)
    known = documentation(tree) | taken(tree)
    texts = [
        parts(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        if id(node) not in known
    ]
    return [text for text in texts if SENTENCE.search(text)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_sentence_goes_through_the_catalog(path):
    name = path.relative_to(PROJECT / "helpers").with_suffix("").as_posix()
    allowed = ENGLISH.get(name, ())
    found = untold(path.read_text(encoding="utf-8"))
    assert [text for text in found if not any(map(text.startswith, allowed))] == []
    old = [start for start in allowed if not any(text.startswith(start) for text in found)]
    assert set(old) <= set(WORDS), "these are no longer there"


def given(source):
    """(line, what a sentence's {fields} are and what it is given do not share) of calls that name all they give."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAY:
            texts = [one.value for one in node.args[: SAY[node.func.id]] if isinstance(one, ast.Constant)]
            names = [one.arg for one in node.keywords]
            if names and None not in names and len(texts) == len(node.args):
                wanted = {name.split(".")[0].split("[")[0] for text in texts for _, name, *_ in FIELDS(text) if name}
                yield node.lineno, wanted ^ set(names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_field_of_a_sentence_is_given_and_no_other(path):
    assert [one for one in given(path.read_text(encoding="utf-8")) if one[1]] == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('raise DataError(f"{name} has no rows at all.")', ["{} has no rows at all."]),
        ('print("all rows fit")', ["all rows fit"]),
        ('Check("loss", f"{n} of {all} layers", tr("all"), True, "")', ["{} of {} layers"]),
        ('raise DataError(tr("{name} has no rows at all.", name=f"row {n} of it"))', ["row {} of it"]),
        ('raise DataError(tr("{name} has no rows at all.", name=name))', []),
        ('reasons["r"] = phrase("half of the layers carry all of it")', []),
        ('raise RowError("no answer", "{name} is empty here", name=name)', []),
    ],
)
def test_a_sentence_that_the_catalog_does_not_have_is_found(code, found):
    assert untold(code) == found
