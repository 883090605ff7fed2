"""What each notebook takes, from the measured run alone: headers, README and the series' table. Measures nothing.

The run is benchmarks/results/laptop-run.json; `python benchmarks/readme.py runs/NAME "PROCESSOR"` takes another.
"""

import json
import re

from helpers.machine.paths import PROJECT

RESULTS = PROJECT / "benchmarks" / "results"
MEASURED = RESULTS / "laptop-run.json"
TITLES = {
    "00_start_here": "find out whether this machine is ready, what will run, and why",
    "01_load_a_quantized_model": "load a quantized model, and prove that it is quantized",
    "02_inspect_the_dataset": "see the data the way the model does: rows, tokens, and which of them are trained",
    "03_finetune_with_lora": "fine-tune with LoRA, watch the loss, measure before and after",
    "04_generate_and_compare": "talk to the result, with every sampling setting at your fingertips",
    "05_prompt_rag_or_finetune": "compare prompt, RAG and fine-tuning on the same questions, with what each costs",
    "06_take_it_with_you": "export, merge, serve and publish it, train on two processes, plan for more",
    "07_which_settings": "find the settings for your data: what each changes, runs side by side, a sweep of minutes",
}


def measured_run() -> dict:
    """The measured run: notebooks (seconds, peak_gib), processor, date, and what was trained."""
    return json.loads(MEASURED.read_text(encoding="utf-8"))


def measured_on_gpu(profile: str) -> dict:
    """What 00 to 04 took on Falcon-7B's shape: card, date, minutes, and GiB of host memory up to a merge.

    minutes: without 03's training, whose budget counts as used.
    held: what no file holds; peak: with the pages of the files that were read.
    """
    notebooks = json.loads((RESULTS / "gpu-notebooks.json").read_text(encoding="utf-8"))
    steps = json.loads((RESULTS / "host-memory-falcon.json").read_text(encoding="utf-8"))["steps"].values()
    run = next(one for one in notebooks["runs"] if one["profile"] == profile)
    seconds = sum(one["seconds"] for one in run["notebooks"].values()) - run["minutes"] * 60
    host = {name: max(step[f"{name}_gib"] for step in steps) for name in ("held", "peak")}
    return {"card": notebooks["machine"]["gpu_name"], "date": notebooks["date"], "minutes": seconds / 60, **host}


def measured_notebooks(number: str, profiles: tuple[str, ...]) -> tuple[list[dict], str]:
    """What a notebook took on a GPU with each profile (seconds, host_peak_gib, gpu_peak_gib), and on what, in words.

    beside: its seconds without the budget of 03's training.
    """
    measured = json.loads((RESULTS / "gpu-notebooks.json").read_text(encoding="utf-8"))
    runs = [next(run for run in measured["runs"] if run["profile"] == profile) for profile in profiles]
    seen = [
        run["notebooks"][number] | {"beside": run["notebooks"][number]["seconds"] - run["minutes"] * 60}
        for run in runs
        if number in run["notebooks"]
    ]
    return seen, f"one H100, random weights, {measured['date']}"


def took(name: str) -> tuple[str, str]:
    """(minutes, memory at the peak) of one notebook, as they are shown."""
    one = measured_run()["notebooks"].get(name)
    if one is None:  # newer than the measured run
        return "not measured", "not measured"
    elsewhere = f" ({one['on']})" if "on" in one else ""  # not with the others
    return f"{one['seconds'] / 60:.1f}{elsewhere}", f"{one['peak_gib']:.1f} GiB"


def notebooks_table() -> str:
    """README's table of notebooks, with what each took."""
    run = measured_run()
    rows = ["| notebook | you will | minutes | memory |", "|---|---|---|---|"]
    rows += [f"| [{n[:2]}](notebooks/{n}.ipynb) | {title} | {' | '.join(took(n))} |" for n, title in TITLES.items()]
    main_job = sum(run["notebooks"][name]["seconds"] for name in TITLES if name[:2] <= "04") / 60
    where = f"two cores of an {run['processor']}, {run['date']}, at {run['tokens_per_second']:.0f} tokens a second"
    later = [name[:2] for name, one in run["notebooks"].items() if "on" in one]
    whole = f"`make run` (00 to 04) takes {main_job:.1f} minutes, `make run-all` {run['minutes']:.1f}"
    whole += f" without {' and '.join(later)}" if later else ""
    return "\n".join(rows) + f"\n\nMeasured on {where}: {whole}, after the installation.\n"


def series_table() -> str:
    """The same inside notebook 00, with links to the notebooks beside it."""
    rows = ["| notebook | you will | minutes |", "|---|---|---|"]
    return "\n".join([*rows, *(f"| [{n[:2]}]({n}.ipynb) | {title} | {took(n)[0]} |" for n, title in TITLES.items())])


def with_figures(text: str, name: str) -> str:
    """A notebook's text with the laptop's row of the header, and the series' table, as they were measured."""
    minutes, memory = took(name)
    text = re.sub(r"(?m)^(\| laptop[^|\n]*\|)[^|\n]*\|[^|\n]*\|$", rf"\1 {minutes} | {memory} |", text)
    table = r"(?m)^\| notebook \| you will \|.*\n\|[-|]+\|\n(?:\|.*\|\n?)+?(?=\n|\Z)"
    return re.sub(table, lambda _: series_table() + "\n", text)


def filled(text: str, mark: str, content: str) -> str:
    """The text with what stands between the marks <!-- mark --> and <!-- /mark --> replaced; without them, as it is."""
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    return pattern.sub(lambda match: match[1] + content + match[2], text)
