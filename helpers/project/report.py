"""One self-contained HTML page of a run, and its figures as text. Knows the files of a run folder."""

import base64
import html
import re
from pathlib import Path

from helpers.machine.card import FIGURES, read_card
from helpers.machine.language import language, tr
from helpers.machine.paths import file_bytes, is_kind, keep, read_json
from helpers.machine.tables import Table

PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"  # how such a file begins and ends


def formatted(value: float | None, form: str) -> str:
    """A figure, or a dash for one that does not apply."""
    return form.format(value) if is_kind(value, (int, float)) else "-"


def figure_rows(summary: dict) -> list[tuple[str, str, str]]:
    """(what, base, tuned) of each figure that the run has."""
    kept = [(label, summary[name], form) for name, (label, form) in FIGURES.items() if summary.get(name)]
    sides = lambda pair, form: (formatted(pair.get("base"), form), formatted(pair.get("tuned"), form))
    return [(tr(label), *sides(pair, form)) for label, pair, form in kept]


def facts(summary: dict) -> str:
    """Speed, time and memory in one line."""
    rate = summary["tokens_per_second"]
    speed = tr("{rate:.0f} tokens a second in training, ", rate=rate) if rate else ""
    taken = {"minutes": summary["minutes"], "gib": summary["peak_gib"]}
    return speed + tr("{minutes:.1f} minutes, {gib:.1f} GiB at the peak", **taken)


def summary_text(summary: dict) -> str:
    """The before/after table as text."""
    if summary["model"] is None:
        return tr("nothing was trained in this run: {facts}", facts=facts(summary))
    shown = Table(("", tr("base"), tr("tuned")), figure_rows(summary))
    where = {"model": summary["model"], "device": summary["device"]}
    return f"{shown}\n\n" + tr("{model} on {device}: {facts}", **where, facts=facts(summary))


def write_report(folder: Path, summary: dict) -> Path:
    """report.html in the run folder: table, loss picture, answers before and after, and every executed notebook."""
    title = html.escape(tr("Fine-tuning, before and after"))
    told = tr("{model}: {facts}", model=str(summary["model"]), facts=facts(summary))
    parts = [f"<h1>{title}</h1><p>{html.escape(told)}</p>"]
    cells = "".join(f"<tr><th scope='row'>{a}</th><td>{b}</td><td>{c}</td></tr>" for a, b, c in figure_rows(summary))
    parts.append(f"<table><tr><th></th><th>{tr('base')}</th><th>{tr('tuned')}</th></tr>{cells}</table>")
    parts += [loss_picture(folder), answers_html(folder)]
    for notebook in sorted((folder / "executed").glob("*.ipynb")):
        if frame := notebook_frame(notebook):
            parts.append(f"<details><summary>{html.escape(notebook.stem)}</summary>{frame}</details>")
    path = folder / "report.html"
    keep(path, lambda: path.write_text(html_page("".join(parts)), encoding="utf-8", errors="replace"))
    return path


def html_page(body: str) -> str:
    """A whole HTML page around the body, readable in light and dark."""
    style = (
        ":root{color-scheme:light dark}body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}td,th{padding:.3rem .8rem;border-bottom:1px solid #8888;text-align:left}"
        "@media(max-width:600px){td,th{padding:.2rem .3rem;font-size:14px;overflow-wrap:anywhere}}"
        "img{max-width:100%;background:#fff}iframe{width:100%;height:80vh;border:1px solid #8888}"
    )
    head = "<meta charset='utf-8'><meta name='viewport' content='width=device-width'><link rel='icon' href='data:,'>"
    head += f"<style>{style}</style>"
    spoken, title = language().replace("_", "-"), html.escape(tr("Fine-tuning report"))
    return f"<!doctype html><html lang='{spoken}'><head>{head}<title>{title}</title></head><body>{body}</body></html>"


def loss_picture(folder: Path) -> str:
    """The loss figure as part of the page."""
    path = folder / "loss.png"
    if not path.exists():
        return ""
    card = read_card(folder)
    if not {"first_loss", "last_loss", "steps"} <= card.keys() or None in (card["first_loss"], card["last_loss"]):
        return ""
    went = {"first": card["first_loss"], "last": card["last_loss"], "steps": card["steps"]}
    alt = html.escape(tr("Training loss goes from {first:.2f} to {last:.2f} in {steps} steps.", **went), quote=True)
    try:
        content = file_bytes(path)
        wrong = "" if content.startswith(PNG) and content.endswith(PNG_END) else tr("it is no whole picture")
    except OSError as error:
        wrong = tr("it cannot be read ({kind})", kind=type(error).__name__)
    if wrong:
        print(tr("{file} is passed over: {wrong}", file=path.name, wrong=wrong))
        return ""
    picture = base64.b64encode(content).decode()
    return f"<h2>{tr('Loss')}</h2><img alt='{alt}' src='data:image/png;base64,{picture}'><p>{alt}</p>"


def answers_html(folder: Path) -> str:
    """Held-out questions with both answers, the worst first, then the best; everything escaped."""
    names, sides = ("question", "expected", "base", "tuned"), ("worst", "best")
    answers = read_json(folder / "answers.json", kinds=dict.fromkeys(sides, list)) or {}
    marks = lambda row: all(row.get(name, "") in (True, False, None) for name in ("base_right", "tuned_right"))
    whole = lambda row: isinstance(row, dict) and all(isinstance(row.get(name), str) for name in names) and marks(row)
    answers = {side: [row for row in answers.get(side, []) if whole(row)] for side in sides}
    if not any(answers.values()):
        return ""
    from helpers.evaluate.comparison import answers_table as table

    title = {"worst": tr("Held-out questions: the worst answers first"), "best": tr("The best answers")}
    parts = [f"<h2>{title[name]}</h2>{table(answers[name])._repr_html_()}" for name in title if answers.get(name)]
    return "".join(parts)


def notebook_frame(notebook: Path) -> str:
    """The executed notebook as a frame that runs no script and cannot reach the page around it; "" for a damaged one,
    which is said."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(embed_images=True, exclude_anchor_links=True)
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = ""
    try:
        body, _ = exporter.from_filename(str(notebook))
    except Exception as error:  # each library of nbconvert puts what is damaged in its own way
        wrong = tr("it cannot be read ({kind})", kind=type(error).__name__)
        print(tr("{file} is passed over: {wrong}", file=f"executed/{notebook.name}", wrong=wrong))
        return ""
    body = re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL | re.IGNORECASE)  # none would run in there
    return f'<iframe sandbox="" title="{html.escape(notebook.stem)}" srcdoc="{html.escape(body, quote=True)}"></iframe>'
