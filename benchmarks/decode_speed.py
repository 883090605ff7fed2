"""Answers to one prompt at a time, by `model.generate` and by decode.Decoder: `python benchmarks/decode_speed.py`.

Both in turn, three rounds, the same greedy and sampled tokens (compared); medians of tokens a second and of the time to
the first token. The laptop profile with a LoRA adapter of random weights and without one; with --falcon the shape of
Falcon-7B in NF4 on a GPU. Writes results/decode-speed.json.
"""

import argparse
import statistics
import time
from datetime import date
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from helpers.data.chat import as_messages, prompt_text
from helpers.data.ends import end_ids
from helpers.generate.decode import Decoder
from helpers.generate.sampling import Sampling
from helpers.machine.hardware import this_machine
from helpers.machine.paths import write_json
from helpers.machine.versions import versions
from helpers.models.load import load_model
from helpers.settings import resolve

TARGET = Path(__file__).resolve().parent / "results" / "decode-speed.json"
QUESTIONS = ("What is the capital of France? Explain its history.", "List ten animals and describe each of them.")
KNOBS = {"greedy": {}, "sampled": {"temperature": 0.7, "top_p": 0.9, "seed": 3}}


def with_adapter(model):
    """The model with an adapter on every linear layer, small random numbers in it."""
    made = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 1e-3)
    return made


def plain(model, tokenizer, prompt: list[int], sampling: Sampling) -> tuple[list[int], float]:
    """Tokens and seconds of model.generate."""
    ids = torch.tensor([prompt], device=model.device)
    torch.manual_seed(sampling.seed)
    start = time.perf_counter()
    with torch.no_grad():
        made = model.generate(
            ids, **sampling.arguments(), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        )
    return made[0, len(prompt) :].tolist(), time.perf_counter() - start


def ours(decoder: Decoder, tokenizer, prompt: list[int], sampling: Sampling) -> tuple[list[int], float, float]:
    """Tokens, seconds, and seconds to the first token."""
    start, made, first = time.perf_counter(), [], None
    for token in decoder.tokens(prompt, sampling, end_ids(tokenizer)):
        first = first or time.perf_counter() - start
        made.append(token)
    return made, time.perf_counter() - start, first


def compare(model, tokenizer, rounds: int, length: int) -> dict:
    """Medians of both sides."""
    decoder, found = Decoder(model), {"plain": [], "ours": [], "ratio": [], "first_seconds": [], "same": []}
    prompts = [
        tokenizer(prompt_text(tokenizer, as_messages(q)), add_special_tokens=False)["input_ids"] for q in QUESTIONS
    ]
    list(decoder.tokens(prompts[0], Sampling(max_new_tokens=10), ()))  # builds the draft
    for _ in range(rounds):
        for prompt in prompts:
            for knobs in KNOBS.values():
                sampling = Sampling(max_new_tokens=length, **knobs)
                expected, seconds = plain(model, tokenizer, prompt, sampling)
                made, ours_seconds, first = ours(decoder, tokenizer, prompt, sampling)
                found["plain"].append(len(expected) / seconds)
                found["ours"].append(len(made) / ours_seconds)
                found["ratio"].append(found["ours"][-1] / found["plain"][-1])
                found["first_seconds"].append(first)
                found["same"].append(made == expected)
    medians = {name: round(statistics.median(found[name]), 2) for name in ("plain", "ours", "ratio", "first_seconds")}
    return {**medians, "same_tokens": f"{sum(found['same'])} of {len(found['same'])}", "how": decoder.how.reason}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--length", type=int, default=80)
    parser.add_argument("--falcon", action="store_true", help="the shape of Falcon-7B in NF4, on a GPU")
    parser.add_argument("--json", type=Path, default=TARGET)
    chosen = parser.parse_args()
    if chosen.falcon:
        from gpu import shape_folder

        settings = resolve("datacenter", model=str(shape_folder("falcon-7b")), quantization="nf4", data="shop_support")
    else:
        settings = resolve("laptop")
    loaded = load_model(settings)
    results = {"base": compare(loaded.model, loaded.tokenizer, chosen.rounds, chosen.length)}
    tuned = with_adapter(loaded.model)
    results["tuned"] = compare(tuned, loaded.tokenizer, chosen.rounds, chosen.length)
    print(results)
    content = {**results, "date": str(date.today()), "machine": this_machine()._asdict(), "versions": versions()}
    write_json(chosen.json, content)


if __name__ == "__main__":
    main()
