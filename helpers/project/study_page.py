"""docs/settings.md's sentences on two variants of the study, made anew from its file. Writes no other sentence."""

import re
from pathlib import Path

from helpers.machine.language import speaking_english
from helpers.machine.paths import PROJECT

PAGE = PROJECT / "docs" / "settings.md"
SENTENCE = re.compile(r"(?m)^- (?P<label>[^:\n]+): (?P<first>[\w.-]+) [\d.]+%?, (?P<second>[\w.-]+) [\d.]+%?\..*$")


def study_page() -> dict[Path, str]:
    """The page, each of its lines such as "- facts right: one 80%, other 70%. ..." as the study says it now."""
    from helpers.evaluate.study import LABELS, read_study, verdict

    study, figures = read_study(), {str(label): figure for figure, (label, _, _) in LABELS.items()}
    said = lambda match: f"- {verdict(study, match['first'], match['second'], figures[match['label']])}"
    with speaking_english():
        return {PAGE: SENTENCE.sub(said, PAGE.read_text(encoding="utf-8"))}
