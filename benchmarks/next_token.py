"""How long the panel's next-token table takes: the first look at a prompt, and again when a knob is moved.

`PYTHONPATH=. python benchmarks/next_token.py`; the newest run's adapter, or a small new one. Writes
results/next-token.json.
"""

import statistics
import time
from datetime import date
from pathlib import Path

from helpers.generate.engine import Engine
from helpers.machine.paths import write_json
from helpers.machine.versions import versions
from helpers.panels.generation import GenerationPanel
from helpers.train.adapters import load_tuned

TARGET = Path(__file__).resolve().parent / "results" / "next-token.json"


def main() -> None:
    """Prints milliseconds of a look, of a moved knob in the engine, and of a moved slider until all widgets are set."""
    model, tokenizer, _, words = load_tuned("auto")
    panel = GenerationPanel(Engine(model, tokenizer), "How much is standard shipping?")
    panel.controls.set(temperature=1.0)
    panel.tokens.box.selected_index = 0
    first, knob, slider = [], [], []
    for turn in range(12):
        start = time.perf_counter()
        panel.prompt.value = f"Question {turn}: how much is standard shipping to the islands?"
        first.append(time.perf_counter() - start)
        request = panel.request()
        start = time.perf_counter()
        panel.engine.look(request)
        knob.append(time.perf_counter() - start)
        start = time.perf_counter()
        panel.controls.numbers["top_p"].slider.value = 0.5 + turn / 30
        slider.append(time.perf_counter() - start)
    names = ("first look at a prompt", "the same again", "a slider moved, all widgets set")
    figures = {
        name: 1000 * statistics.median(times[2:]) for name, times in zip(names, (first, knob, slider), strict=True)
    }
    for name, milliseconds in figures.items():
        print(f"{name}: {milliseconds:.0f} ms (median of 10)")
    write_json(TARGET, {"date": str(date.today()), "model": words, "versions": versions(), "milliseconds": figures})


if __name__ == "__main__":
    main()
