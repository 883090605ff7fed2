"""How the site's search cuts text into words: English by its stems, Chinese into characters and pairs of them.

Sphinx's own way for Chinese needs a dictionary of 19 MB, and finds a word only where the dictionary cuts it out.
"""

import re
from collections.abc import Iterator

CHINESE = r"\u3400-\u4dbf\u4e00-\u9fff"
PIECES = re.compile(rf"[{CHINESE}]+|(?:(?![{CHINESE}])\w)+")

# What Sphinx's page calls for a reader's query: pairs too, so that a word inside of a longer run is found.
SPLIT_QUERY = rf"""
var splitQuery = (query) => query
  .split(/[^\p{{Letter}}\p{{Number}}_\p{{Emoji_Presentation}}]+/gu)
  .flatMap((term) => term.split(/([{CHINESE}]+)/))
  .filter((term) => term)
  .flatMap((term) => /^[{CHINESE}]{{3,}}$/.test(term)
    ? Array.from({{length: term.length - 1}}, (_, at) => term.slice(at, at + 2)) : [term]);
"""


def index_words(text: str) -> Iterator[str]:
    """The words under which a text is found; of Chinese each character and each pair of neighbours."""
    for piece in PIECES.findall(text):
        if re.match(f"[{CHINESE}]", piece):
            yield from piece
            yield from (piece[at : at + 2] for at in range(len(piece) - 1))
        else:
            yield piece


def use_in_sphinx() -> None:
    """Makes Sphinx build its index so, for pages in either language."""
    from sphinx import search

    class Search(search.SearchEnglish):
        js_splitter_code = SPLIT_QUERY

        def split(self, text: str) -> list[str]:
            return list(index_words(text))

    search.languages |= {"en": Search, "zh": Search}
