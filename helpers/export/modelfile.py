"""Ollama's Modelfile for a tokenizer's chat template: a loop over messages, proved on a conversation of three turns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.data.chat import begin_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")
TEXTS = {role: f"\u2402{role}\u2403" for role in ROLES}


class Frames(NamedTuple):
    """What a template writes around each role's text, and at the beginning where there is no system message.

    around: role: (before, after). prompt: what comes before an answer that is to be made.
    """

    around: dict[str, tuple[str, str]]
    start: str
    prompt: str

    def text(self, messages: list[dict]) -> str:
        """A conversation that is to be answered."""
        written = [message["content"].join(self.around[message["role"]]) for message in messages]
        start = "" if messages[0]["role"] == "system" else self.start
        return start + "".join(written) + self.prompt


def template_text(tokenizer: PreTrainedTokenizerBase, messages: list[dict], prompt: bool = True) -> str:
    """The conversation under the template, without what the tokenizer puts before every text; "" if it is refused."""
    try:
        text: Any = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except Exception:  # a template may raise whatever it likes
        return ""
    begin: Any = "".join(tokenizer.convert_ids_to_tokens(begin_ids(tokenizer)))
    return text.removeprefix(begin)


def frames_of(tokenizer: PreTrainedTokenizerBase) -> Frames | None:
    """The frames of the tokenizer's template; None where it is no loop of frames, as a conversation of three shows."""
    said = lambda role: {"role": role, "content": TEXTS[role]}
    asked, answered = said("user"), said("assistant")
    talk = [asked, answered, asked, answered, asked]
    whole = template_text(tokenizer, talk)
    pieces = whole.replace(TEXTS["assistant"], TEXTS["user"]).split(TEXTS["user"])
    if len(pieces) != 6:
        return None
    first, between, back, *_, last = pieces
    # `back` is an answer's end and a question's beginning; how the text begins shows where it is cut.
    after_answer = next((back[:cut] for cut in range(len(back) + 1) if first.endswith(back[cut:])), back)
    before_user = back[len(after_answer) :]
    start, prompt = first[: len(first) - len(before_user)], last
    one = template_text(tokenizer, [asked], prompt=False).partition(TEXTS["user"])[2]
    after_user = one if between.startswith(one) else ""
    around = {"user": (before_user, after_user), "assistant": (between[len(after_user) :], after_answer)}
    prompt = last.removeprefix(after_user)
    system = template_text(tokenizer, [said("system"), *talk])
    before, marker, after = system.partition(TEXTS["system"])
    behind = whole[len(start) :]
    around["system"] = (before, after.removesuffix(behind)) if marker and after.endswith(behind) else ("", "\n")
    frames = Frames(around, start, prompt)
    shorter = [talk[:1], talk[:3]]
    tried = [*shorter, talk, *([[said("system"), *part] for part in (*shorter, talk)] if marker else [])]
    return frames if all(frames.text(part) == template_text(tokenizer, part) for part in tried) else None


def modelfile(file: str, tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> str:
    """The Modelfile: the file, the template as Ollama's language has it, and every text at which an answer ends.

    Ollama's TEMPLATE is Go's text/template over .Messages (template/template.go in ollama/ollama; read, not copied).
    A template that is no loop of frames is left to Ollama, which looks for one that is like the file's own.
    """
    frames, lines = frames_of(tokenizer), [f"FROM ./{file}"]
    stops: list[str] = [str(token) for token in tokenizer.convert_ids_to_tokens(ends)]
    if frames and not any(mark in "".join([*sum(frames.around.values(), ()), frames.start]) for mark in ("{{", '"""')):
        lines.append(f'TEMPLATE """{as_go(frames)}"""')
        question = frames.around["user"][0].strip()
        stops += [question] if question and question not in tokenizer.get_vocab() and "<" not in question else []
    else:
        lines.append("# This chat template is no plain loop over messages: compare the answers with `export --check`.")
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in dict.fromkeys(stops)]
    return "\n".join([*lines, "PARAMETER temperature 0"]) + "\n"


def as_go(frames: Frames) -> str:
    """The frames in Go's template language, one branch a role."""
    branches = [
        f'{{{{ {"if" if number == 0 else "else if"} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}'
        for number, (role, (before, after)) in enumerate(frames.around.items())
    ]
    start = f"{{{{ if not .System }}}}{frames.start}{{{{ end }}}}" if frames.start else ""
    return f"{start}{{{{ range .Messages }}}}{''.join(branches)}{{{{ end }}}}{{{{ end }}}}{frames.prompt}"
