"""Writes the measured figures into the documents: `python benchmarks/readme.py`; with --check it only compares.

`python benchmarks/readme.py runs/NAME "AMD EPYC"` takes the figures of a whole run, made on such a processor, first;
`python benchmarks/readme.py test-artifacts/steps.json "AMD EPYC"` takes what the steps of a `make test` took.

The text between <!-- figures --> and <!-- /figures -->, and between the other marks (notebooks, speed, systems, steps),
comes from benchmarks/results, so that no figure is typed. What `python -m helpers write` makes of a run (the notebooks'
headers) is written too.
"""

import json
import sys
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.project.measured import filled, notebooks_table
from helpers.project.written import write

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "benchmarks" / "results"
WORDS = {
    "README.md": ("held-out questions", "base model", "fine-tuned", "spread over 3 seeds"),
}
LABELS = {
    "README.md": (
        "facts right (English)",
        "NLL (nats a token)",
        "answers that end",
        "house style in the shop's answers",
        "sign-off in general answers",
        "general questions right",
        "facts right (Chinese)",
    ),
}
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


def systems_table() -> str:
    """The five systems of notebook 05 in the measured run, and what changed facts did to them."""
    run = json.loads((RESULTS / "laptop-run.json").read_text(encoding="utf-8"))
    head = ("system", "facts right (95 % interval)", "in the house style", "prompt tokens", "seconds for 1,000")
    rows = ["| " + " | ".join(head) + " |", "|---|---|---|---|---|"]
    for name, one in run["systems"].items():
        mean, low, high = one["accuracy"]
        cells = (name, f"{mean:.0%} ({low:.0%} to {high:.0%})", f"{one['signed']:.0%}", f"{one['prompt_tokens']:.0f}")
        rows.append("| " + " | ".join((*cells, f"{1000 * one['seconds']:.0f}")) + " |")
    changed = ", ".join(f"{name} {share:.0%}" for name, share in run["changed"].items())
    return "\n".join(rows) + f"\n\nRight after twenty facts changed: {changed}.\n"


SPEED = {
    "README.md": ("trained", "TRL alone", "here", "ratio", "tokens/s"),
}
GPU_ROWS = (
    ("Falcon-7B shape, NF4, checkpointing", "falcon-stock", "falcon-nf4-ckpt"),
    ("Falcon-7B shape, NF4", None, "falcon-nf4"),
    ("Falcon-7B shape, bf16", None, "falcon-bf16"),
    ("Llama-3-8B shape, NF4, checkpointing", "llama-stock", "llama-nf4-ckpt"),
    ("Llama-3-8B shape, NF4", None, "llama-nf4"),
)
ANSWERS_ROWS = (
    ("falcon-nf4-answers", "Falcon-7B shape, NF4"),
    ("falcon-bf16-answers", "Falcon-7B shape, bf16"),
    ("llama-nf4-answers", "Llama-3-8B shape, NF4"),
)


def answers_rows() -> list[str]:
    """Tokens a second of one answer of the tuned model: a pass of the library for each token, and here."""
    runs = json.loads((RESULTS / "gpu-answers.json").read_text(encoding="utf-8"))["results"]
    found = {run["variant"]: run for run in runs}
    rows = ["", "| answers, adapter on and not merged | passes one by one | here | ratio |", "|---|---|---|---|"]
    for variant, title in ANSWERS_ROWS:
        plain, here = found[variant]["plain_tuned"], found[variant]["tuned"]
        rows.append(f"| {title}, H100 | {plain:.0f} tokens/s | **{here:.0f}** | {here / plain:.1f} x |")
    return rows


def speed_table(document: str) -> str:
    """Tokens a second of TRL alone and of this project, and of answers."""
    cpu = json.loads((RESULTS / "cpu-bench.json").read_text(encoding="utf-8"))
    runs = json.loads((RESULTS / "gpu.json").read_text(encoding="utf-8"))["results"]
    gpu = {run["variant"]: run for run in runs}
    *heads, unit = SPEED[document]
    rows = ["| " + " | ".join(heads) + " |", "|---|---|---|---|"]
    cores = f"{cpu['machine']['cores']} CPU cores"
    rows.append(f"| SmolLM2-135M, {cores} | {cpu['stock']:.0f} {unit} | **{cpu['ours']:.0f}** | {cpu['ratio']:.1f} x |")
    for title, theirs, mine in GPU_ROWS:
        cell, ratio = "", ""
        if theirs:
            cell = f"{gpu[theirs]['tokens_per_second']:,.0f} {unit}, {gpu[theirs]['peak_gib']:.1f} GiB"
            ratio = f"{gpu[mine]['tokens_per_second'] / gpu[theirs]['tokens_per_second']:.1f} x"
        here = f"**{gpu[mine]['tokens_per_second']:,.0f}**, {gpu[mine]['peak_gib']:.1f} GiB"
        rows.append(f"| {title}, H100 | {cell} | {here} | {ratio} |")
    return "\n".join([*rows, *answers_rows()]) + "\n"


def steps_table() -> str:
    """What each step of `make test` proves, and what it took where that was measured."""
    sys.path.insert(0, str(PROJECT / "tests"))
    import run_all

    measured = json.loads((RESULTS / "test-steps.json").read_text(encoding="utf-8"))
    took = {step["step"]: step for step in measured["steps"]}
    rows = ["| step | what it proves | tests | seconds |", "|---|---|---|---|"]
    for step in run_all.chosen_steps([]):
        one = took.get(step.name)
        cells = f"{one['tests'] or ''} | {one['seconds']:.0f}" if one else "| not measured"
        rows.append(f"| `{step.name}` | {step.proves} | {cells} |")
    where = f"two cores of an {measured['processor']}, {measured['date']}"
    return (
        "\n".join(rows) + f"\n\nMeasured on {where}: {measured['minutes']:.0f} minutes for the steps with a figure.\n"
    )


def take_run(folder: Path, processor: str) -> None:
    """Keeps a run's figures as laptop-run.json."""
    summary, card = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("summary", "run_card")
    )
    compared = card["comparison"]
    parts = ("forgetting", "uses", "break_even", "changed")
    wanted = ("accuracy", "prompt_tokens", "seconds")
    systems = {name: {key: one[key] for key in wanted} for name, one in compared.items() if name not in parts}
    for name, one in systems.items():
        one["signed"] = sum(compared[name]["signed"]) / len(compared[name]["signed"])
    training = {key: card[key] for key in ("peak_gib", "forecast_gib", "seconds", "forecast_seconds")}
    found = {"date": str(date.today()), "processor": processor, "versions": card["versions"], **summary}
    found |= {
        "training": training,
        "systems": systems,
        **{name: compared[name] for name in ("changed", "forgetting", "uses")},
    }
    (RESULTS / "laptop-run.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def take_steps(file: Path, processor: str) -> None:
    """Keeps the seconds of each step of a `make test` as test-steps.json."""
    found = {"date": str(date.today()), "processor": processor, **json.loads(file.read_text(encoding="utf-8"))}
    (RESULTS / "test-steps.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    if len(sys.argv) == 3:
        path = Path(sys.argv[1])
        (take_run if path.is_dir() else take_steps)(path, sys.argv[2])
    contributing = PROJECT / "CONTRIBUTING.md"
    old = contributing.read_text(encoding="utf-8")
    new = filled(old, "steps", steps_table())
    if old != new and "--check" in sys.argv:
        sys.exit("CONTRIBUTING.md does not state test-steps.json: run python benchmarks/readme.py")
    contributing.write_text(new, encoding="utf-8")
    for document in WORDS:
        path = PROJECT / document
        old = path.read_text(encoding="utf-8")
        new = filled(filled(old, "figures", block(document)), "notebooks", notebooks_table())
        new = filled(filled(new, "speed", speed_table(document)), "systems", systems_table())
        if old != new and "--check" in sys.argv:
            sys.exit(f"{document} does not state the figures of benchmarks/results: run python benchmarks/readme.py")
        path.write_text(new, encoding="utf-8")
    if "--check" not in sys.argv:
        write()


if __name__ == "__main__":
    main()
