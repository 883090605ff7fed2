"""Questions and answers as a thread: for the screen, for a file, for the model's next turn. Knows no widgets."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple

from helpers.generate.events import Parting, Turn
from helpers.machine.language import phrase, tr

WRAPPED = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.4"
ASKED = "border-left:3px solid #888;padding:2px 8px;margin:6px 0 2px"
FOUND = "font-size:0.9em;overflow-wrap:anywhere;line-height:1.35;padding:2px 8px;margin:2px 0"
NAMES = {"base": phrase("base model"), "tuned": phrase("fine-tuned model")}
COPY = (
    "const done = text => this.textContent = text; navigator.clipboard ? "
    "navigator.clipboard.writeText(this.dataset.text).then(() => done('{copied}'), () => done('{select}')) "
    ": done('{select}')"
)


class Exchange(NamedTuple):
    """A question and its answers by model. starts: nothing said before was read with it.

    passages: (text, where it stands) of what a search put above the question; None without a search.
    """

    question: str
    answers: dict[str, str]
    parting: Parting | None = None
    starts: bool = True
    passages: tuple[tuple[str, str], ...] | None = None


def turns(exchanges: Sequence[Exchange]) -> tuple[Turn, ...]:
    """What the model reads before the next question: the thread from its last start on."""
    first = max((index for index, one in enumerate(exchanges) if one.starts), default=0)
    return tuple(Turn(one.question, one.answers) for one in exchanges[first:])


def thread_html(exchanges: Sequence[Exchange]) -> str:
    """The thread as HTML; a line stands where a conversation begins anew. Everything is escaped."""
    return "".join(
        f"{'<hr style=opacity:.4>' if one.starts and index else ''}{exchange_html(one)}"
        for index, one in enumerate(exchanges)
    )


def exchange_html(exchange: Exchange) -> str:
    """One question with its answers; two of them side by side where there is room."""
    cells = "".join(
        f"<div style='flex:1 1 200px;min-width:0'>{answer_html(name, text, exchange.parting)}</div>"
        for name, text in exchange.answers.items()
    )
    asked = question_html(exchange.question) + passages_html(exchange.passages)
    return f"{asked}<div style='display:flex;flex-wrap:wrap;gap:0 16px'>{cells}</div>"


def question_html(question: str) -> str:
    """A question as it stands in the thread."""
    said = f"<span style='{WRAPPED}'>{html.escape(question)}</span>"
    return f"<div style='{ASKED}'>{tr('<b>You:</b> {said}', said=said)}</div>"


def passages_html(passages: Sequence[tuple[str, str]] | None) -> str:
    """What was found for a question, each passage with its place; "" without a search. Escaped, as all text here."""
    if passages is None:
        return ""
    lines = "".join(
        f"<li>{html.escape(text)} <span style='opacity:.75'>{html.escape(source)}</span></li>"
        for text, source in passages
    )
    found = tr("On the sheet: {found}", found=f"<ul style=margin:0>{lines}</ul>" if lines else tr("nothing near"))
    return f"<div style='{FOUND}'>{found}</div>"


def answer_html(name: str, text: str, parting: Parting | None = None) -> str:
    """An answer under the name of its model; the blank with which many templates let it begin is not shown."""
    shown = marked(text, name, parting).lstrip(" ")
    return f"<b>{tr(NAMES[name])}</b><div style='{WRAPPED};font-size:1.1em'>{shown}</div>"


def marked(text: str, name: str, parting: Parting | None) -> str:
    """An answer as HTML, with the token where two answers part between marks that need no colour."""
    if not parting or not text.startswith(parting.shared) or len(text) == len(parting.shared):
        return html.escape(text)
    rest = text[len(parting.shared) :]
    token = getattr(parting, name)
    length = len(token) if rest.startswith(token) else 1  # a part of a character is seen when it is whole
    mark = f"<mark title='{tr('here the two part')}'>[{html.escape(rest[:length])}]</mark>"
    return html.escape(parting.shared) + mark + html.escape(rest[length:])


def as_markdown(exchanges: Sequence[Exchange]) -> str:
    """The thread as Markdown; what was said is quoted, so that it stays apart from the names."""
    parts = []
    for index, one in enumerate(exchanges):
        parts += ["---"] if one.starts and index else []
        parts.append(f"**{tr('You')}**\n\n{quoted(one.question)}")
        for text, source in one.passages or ():
            parts.append(f"{tr('On the sheet ({source})', source=source or tr('no source'))}\n\n{quoted(text)}")
        parts += [f"**{tr(NAMES[name]).capitalize()}**\n\n{quoted(text)}" for name, text in one.answers.items()]
    return "\n\n".join(parts) + "\n" if parts else ""


def quoted(text: str) -> str:
    """Text as a Markdown quotation."""
    return "\n".join(f"> {line}" for line in text.splitlines() or [""])


def save_html(exchanges: Sequence[Exchange]) -> str:
    """A link that downloads the thread, and a button that copies it; the text stands below, where neither works."""
    text = as_markdown(exchanges)
    if not text:
        return f"<p>{tr('Nothing has been asked yet.')}</p>"
    encoded = base64.b64encode(text.encode()).decode()
    download, copy = tr("Download as Markdown"), tr("Copy")
    link = f'<a download="conversation.md" href="data:text/markdown;base64,{encoded}">{download}</a>'
    on_click = COPY.format(copied=tr("Copied"), select=tr("Select the text below"))
    button = f'<button type="button" data-text="{html.escape(text, quote=True)}" onclick="{on_click}">{copy}</button>'
    return f"<p>{button} &nbsp; {link}</p>"


def thread_text(exchanges: Sequence[Exchange]) -> str:
    """The thread as plain text."""
    lines = []
    for one in exchanges:
        lines.append(tr("You: {question}", question=one.question))
        lines += [tr("on the sheet: {text}", text=text) for text, _ in one.passages or ()]
        lines += [tr("{model}: {text}", model=tr(NAMES[name]), text=text) for name, text in one.answers.items()]
    return "\n".join(lines)
