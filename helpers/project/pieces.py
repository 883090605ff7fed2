"""What of a notebook's cell is translated: its text, or its comments and shown strings. Knows no language."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from typing import NamedTuple

# Whose strings a reader sees. Everything else (keys, paths, prompts, what a model reads) stays as it is.
CALLS = {"print", "Table", "show_figure", "set_title", "suptitle", "annotate", "legend"}
KEYWORDS = {"title", "label", "xlabel", "ylabel", "description", "text", "alt", "suptitle"}
NAMES = {"text", "alt", "note", "said", "count", "words", "header", "title", "stopped", "left", "training", "once"}
NAMES |= {"sure", "points"}
WORDS = {"as shipped", "corrected", "memory at the peak, GiB", "time, seconds"}  # shown by way of other names
WORDS |= {"two of these models do not fit into the memory here"}
FIELD = re.compile(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")  # of an f-string
THROUGH: tuple[type[ast.AST], ...] = (
    ast.JoinedStr,
    ast.FormattedValue,
    ast.IfExp,
    ast.BinOp,
    ast.BoolOp,
    ast.Tuple,
    ast.List,
    ast.Starred,
)
THROUGH += (ast.ListComp, ast.GeneratorExp, ast.Lambda)


class Piece(NamedTuple):
    """A part of a cell: where its words stand in the source (end excluded), and the words."""

    start: int
    end: int
    text: str


class PieceError(ValueError):
    """A translated cell differs from its source where it may not; the message shows both."""


def lexed(source: str) -> Iterator[tuple[str, int, int]]:
    """(kind, start, end) of each token of Python source; kind: comment, string, code, or layout.

    An f-string is one token, as it was before Python 3.12.
    """
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    layout = {"NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER"}
    opened, start = 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        here, after = (begins[row - 1] + column for row, column in (token.start, token.end))
        name = tokenize.tok_name[token.type]
        if name == "FSTRING_START":
            start = here if not opened else start
            opened += 1
        elif name == "FSTRING_END":
            opened -= 1
            if not opened:
                yield "string", start, after
        elif not opened:
            kind = "layout" if name in layout or token.string in ("(", ")", ",") else "code"
            yield {"COMMENT": "comment", "STRING": "string"}.get(name, kind), here, after


def inside(source: str, kind: str, start: int, end: int) -> Piece:
    """The words of a comment or string: without its mark, prefix and quotes."""
    whole = source[start:end]
    pattern = r"#+ ?(.*)" if kind == "comment" else r"[A-Za-z]*(?:\"\"\"|'''|\"|')(.*?)(?:\"\"\"|'''|\"|')"
    match = re.fullmatch(pattern, whole, re.DOTALL)
    if match is None:
        raise PieceError(f"no comment or string: {whole}")
    return Piece(start + match.start(1), start + match.end(1), match[1])


def parents_of(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """Each node's parent."""
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def is_shown(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> bool:
    """Whether a reader sees this string: what a cell prints, draws or says when a proof fails, and docstrings."""
    if getattr(node, "value", None) in WORDS:
        return True
    while True:
        child, node = node, parents[node]
        if isinstance(node, ast.FormattedValue) and child is node.format_spec:
            return False
        if isinstance(node, THROUGH):
            continue
        if isinstance(node, ast.Call) and child is not node.func:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name != "join":
                return name in CALLS
        elif isinstance(node, ast.Dict):
            if child in node.keys:
                return False
        elif isinstance(node, ast.keyword):
            if node.arg not in KEYWORDS:
                return ast.unparse(getattr(parents[node], "func", node)) == "show_figure"
            return True
        elif isinstance(node, ast.Assign):
            target = node.targets[0]
            return getattr(target.value if isinstance(target, ast.Subscript) else target, "id", "") in NAMES
        elif isinstance(node, ast.Assert):
            return child is node.msg
        elif isinstance(node, ast.Attribute):
            if node.attr not in ("join", "format"):
                return False
            node = parents[node]  # the call, whose result is looked at
        elif isinstance(node, ast.Expr):
            return isinstance(parents[node], (ast.FunctionDef, ast.ClassDef))
        else:
            return isinstance(node, ast.Raise)


def shown_spans(source: str) -> list[tuple[int, int]]:
    """Where the shown strings of Python source stand."""
    tree = ast.parse(source)
    parents = parents_of(tree)
    lines = source.splitlines(keepends=True)
    begins = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]

    def offset(row: int, column: int) -> int:
        return begins[row - 1] + len(lines[row - 1].encode()[:column].decode())

    spans = []
    for node in ast.walk(tree):
        whole = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        if whole and not isinstance(parents.get(node), (ast.JoinedStr, ast.FormattedValue)) and is_shown(node, parents):
            spans.append((offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)))  # type: ignore
    return spans


def spoken(text: str) -> str:
    """The words of a string: in place of a field what it says in words, as in {'on' if ... else 'off'}, or an X."""

    either = r"(?P<quote>['\"])(?P<yes>.*?)(?P=quote) if .* else (?P=quote)(?P<no>.*?)(?P=quote)"

    def words(field: re.Match) -> str:
        match = re.search(either, field[0])
        return f"{match['yes']}\n{match['no']}" if match else "X"

    return re.sub(r"\\[nt]", "\n", FIELD.sub(words, text))


def has_words(text: str) -> bool:
    """Whether there is something to translate: a word of two letters that is no name in code and no file."""
    return bool(re.search(r"[A-Za-z]{2}", re.sub(r"\w*[_.]\w[\w.]*", " ", spoken(text))))


def has_punctuation(text: str) -> bool:
    """Whether it has a mark that Chinese writes another way: a comma, colon or semicolon and a blank."""
    return bool(re.search(r"[,;:] ", text))


def code_pieces(source: str) -> list[Piece]:
    """Comments and shown strings of a code cell, in their order."""
    spans = shown_spans(source)
    pieces = []
    for kind, start, end in lexed(source):
        if kind == "comment" or (kind == "string" and any(a <= start and end <= b for a, b in spans)):
            piece = inside(source, kind, start, end)
            if has_words(piece.text) or has_punctuation(piece.text):
                pieces.append(piece)
    return pieces


def with_pieces(source: str, translated: Mapping[str, str]) -> str:
    """A code cell whose comments and shown strings are those of `translated`, where it has them."""
    for piece in reversed(code_pieces(source)):
        source = source[: piece.start] + translated.get(piece.text, piece.text) + source[piece.end :]
    return source


def aligned(english: str, translated: str) -> dict[str, str]:
    """What each comment and shown string of a code cell became in its translation.

    Raises PieceError where anything else differs but the layout: brackets, commas and line breaks.
    """
    there = {(piece.start, piece.end) for piece in code_pieces(english)}
    ours, theirs = ([one for one in lexed(text) if one[0] != "layout"] for text in (english, translated))
    if len(ours) != len(theirs):
        raise PieceError(f"{len(ours)} tokens became {len(theirs)}")
    pairs = {}
    for (kind, a, b), (other, c, d) in zip(ours, theirs, strict=True):
        if kind == other == "code" or (kind, english[a:b]) == (other, translated[c:d]):
            same, entry = english[a:b] == translated[c:d], kind != "code"
        else:
            same, entry = False, kind == other
        if entry:
            piece, new = inside(english, kind, a, b), inside(translated, kind, c, d)
            if (piece.start, piece.end) in there:
                pairs[piece.text] = new.text
                same = True
        if not same:
            raise PieceError(f"may not differ: {english[a:b]!r} and {translated[c:d]!r}")
    return pairs


def same_code(english: str, translated: str) -> bool:
    """Whether two cells are one program when what is shown is left out: strings, and of f-strings all but fields."""
    trees = [ast.parse(source) for source in (english, translated)]
    for tree in trees:
        parents = parents_of(tree)
        for node in [one for one in parents if isinstance(one, ast.JoinedStr) and is_shown(one, parents)]:
            node.values = [value for value in node.values if not isinstance(value, ast.Constant)]
    parents = parents_of(trees[0])
    for node, other in zip(*map(ast.walk, trees), strict=False):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and is_shown(node, parents):
            if not (isinstance(other, ast.Constant) and isinstance(other.value, str)):
                return False
            node.value = other.value = ""
    return ast.dump(trees[0]) == ast.dump(trees[1])
