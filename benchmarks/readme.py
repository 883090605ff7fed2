"""Writes the measured figures into the READMEs: `python benchmarks/readme.py`; with --check it only compares.

The text between <!-- figures --> and <!-- /figures --> comes from benchmarks/results, so that no figure is typed.
"""

import json
import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- figures -->\n).*?(<!-- /figures -->)", re.DOTALL)
WORDS = {
    "README.md": ("held-out questions", "base model", "fine-tuned", "spread over 3 seeds"),
    "README.zh-CN.md": ("未参与训练的问题", "原模型", "微调后", "3 个随机种子的范围"),
}
LABELS = {
    "README.md": ("facts right (English)", "NLL (nats a token)", "answers that end", "house style in the shop's answers",
                  "sign-off in general answers", "general questions right", "facts right (Chinese)"),
    "README.zh-CN.md": ("事实正确（英文）", "NLL（每词元，nat）", "会自己结束的回答", "店铺回答的固定风格",
                        "一般回答中出现署名", "一般问题正确", "事实正确（中文）"),
}  # fmt: skip
NAMES = ("fact_accuracy", "nll", "ended", "style", "general_signed", "general_accuracy", "fact_accuracy_chinese")


def block(document: str) -> str:
    """The table of one README."""
    summary = json.loads((RESULTS / "laptop-seeds.json").read_text(encoding="utf-8"))["summary"]
    rows = ["| " + " | ".join(WORDS[document]) + " |", "|---|---|---|---|"]
    for label, name in zip(LABELS[document], NAMES, strict=True):
        form = "{:.2f}" if name == "nll" else "{:.0%}"
        base, tuned = summary[name]["base"], summary[name]["tuned"]
        cells = [form.format(value) for value in (base["mean"], tuned["mean"], tuned["min"], tuned["max"])]
        rows.append(f"| {label} | {cells[0]} | **{cells[1]}** | {cells[2]} to {cells[3]} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    for document in WORDS:
        path = PROJECT / document
        old = path.read_text(encoding="utf-8")
        new = BLOCK.sub(lambda found, table=block(document): found[1] + table + found[2], old)
        if old != new and "--check" in sys.argv:
            sys.exit(f"{document} does not state the figures of benchmarks/results: run python benchmarks/readme.py")
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
