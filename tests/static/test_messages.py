"""The catalog of what helpers say: whole, with the same fields, in the house's style, and what gettext reads of it."""

import gettext
import re
import string
import tomllib

from helpers.machine.language import DOMAIN, LOCALE
from helpers.machine.paths import PROJECT
from helpers.project import chinese, likeness
from helpers.project.catalogs import catalog_text, entries, read_catalog, stale
from helpers.project.messages import CATALOG, sentences_wanted

ENTRIES = entries(read_catalog(CATALOG))


def fields(text):
    found = ((name, spec, kind) for _, name, spec, kind in string.Formatter().parse(text) if name is not None)
    return sorted(found, key=str)


# fields that are sentences, or words of one
WHOLE = "advice|begin|by|done|failed|found|hint|kept|known|limits|more|moves|needed|note|question|"
WHOLE += "reading|reason|reasons|remedy|safe|sentence|shown|text|told|verdict|what|when|which|why|wrong"


def plain(text):
    text = re.sub(rf"\{{(?:{WHOLE})\}}", "", text)
    return re.sub(r"\{[^{}]*\}", "X", re.sub(r"`[^`]*`", "X", re.sub(r"</?\w+>", "", text)))


def test_everything_that_helpers_say_by_the_catalog_is_in_it_once_and_translated():
    assert [one.id for one in ENTRIES] == [one.english for one in sentences_wanted()] and len(ENTRIES) > 300
    assert stale(read_catalog(CATALOG)) == []
    assert CATALOG.read_text(encoding="utf-8") == catalog_text(read_catalog(CATALOG))


def test_fields_conversions_and_formats_are_the_same():
    assert [one.id for one in ENTRIES if fields(one.id) != fields(one.string)] == []


def test_numbers_are_the_same_in_digits_or_words():
    bare = lambda text: re.sub(r"\{[^{}]*\}", " ", text)
    faults = {one.id: likeness.number_faults(bare(one.id), bare(one.string)) for one in ENTRIES}
    assert {text: found for text, found in faults.items() if found} == {}


def test_the_chinese_keeps_the_houses_rules_and_none_is_left_in_english():
    for one in ENTRIES:
        if "kept" not in one.flags:
            assert chinese.style_faults(plain(one.string), "hint") == [], one.id
            assert re.search(chinese.HAN, one.string) or not re.search(
                r"[a-z]{2}", re.sub(r"\w*_\w*", "", plain(one.id))
            ), one.id
        else:
            marks = re.search(r"[,;:](?: |$)|\.$|[()]", re.sub(r"\{[^{}]*\}", "X", one.id))
            assert one.id == one.string and len(one.id.split()) <= 2 and not marks, f"Chinese marks: {one.id}"


def test_gettext_reads_what_the_catalog_says():
    made = gettext.translation(DOMAIN, LOCALE, ["zh_CN"])
    assert [one.id for one in ENTRIES if made.gettext(one.id) != one.string] == []


def test_the_package_has_its_catalog_with_it():
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = pyproject["tool"]["setuptools"]["package-data"]["helpers"]
    files = {path for pattern in patterns for path in (PROJECT / "helpers").glob(pattern)}
    assert CATALOG.with_suffix(".mo") in files
    others = {
        path for path in (PROJECT / "helpers").rglob("*.*") if path.suffix in (".mo", ".cu", ".html", ".js", ".css")
    }
    assert files == others, "what is no Python has to be named in pyproject.toml"
