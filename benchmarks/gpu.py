"""Speed of training and answers, 7B shapes, one GPU: `python benchmarks/gpu.py VARIANT... [--json FILE]`, or `list`.

Random weights of the real shape, saved once to the cache folder and loaded as any model is. Every variant is a process
of its own and sees the same tokenized rows (their hash is printed). Tokens are those that are not padding; the first
steps are warm-up, evaluation and saving are off, and the GPU is waited for at both ends.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
from transformers import TrainerCallback

from helpers.data.load import load_chat_data
from helpers.machine.hardware import Choice, Machine, this_machine
from helpers.machine.paths import cache_folder, write_json
from helpers.machine.versions import versions
from helpers.models import tiny
from helpers.models.load import load_tokenizer
from helpers.project.bench import our_trainer, stock_trainer, train_and_measure
from helpers.settings import resolve

PEERS = {  # variants of unsloth_peer.py: what it does, rows a step, checkpointing
    "llama-unsloth": ("train", 8, 0),
    "llama-unsloth-ckpt": ("train", 8, 1),
    "llama-unsloth-answers": ("answers", 1, 0),
}
RESULTS = Path(__file__).resolve().parent / "results"
T4 = Machine((7, 5), "T4 (assumed)", 14.5, 12.7, 2, False)
NF4, CHECKPOINTING = {"quantization": "nf4"}, {"gradient_checkpointing": True}
BATCH = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
FALCON_NF4 = {"shape": "falcon-7b", **BATCH, **NF4}
LLAMA_NF4 = {"shape": "llama-8b", **BATCH, **NF4}
VARIANTS = {
    "falcon-bf16": {"shape": "falcon-7b", **BATCH, "quantization": "none"},
    "falcon-bf16-16": {"shape": "falcon-7b", **BATCH, "quantization": "none", "per_device_train_batch_size": 16},
    "falcon-fp8": {**FALCON_NF4, "quantization": "fp8"},
    "falcon-fp8-16": {**FALCON_NF4, "quantization": "fp8", "per_device_train_batch_size": 16},
    "llama-fp8": {**LLAMA_NF4, "quantization": "fp8"},
    "falcon-fp8-answers": {**FALCON_NF4, "quantization": "fp8", "answers": True},
    "falcon-nf4": FALCON_NF4,
    "falcon-nf4-4": {**FALCON_NF4, "per_device_train_batch_size": 4},
    "falcon-nf4-ckpt": {**FALCON_NF4, **CHECKPOINTING},
    "falcon-nf4-ckpt-2": {**FALCON_NF4, **CHECKPOINTING, "per_device_train_batch_size": 2},
    "falcon-nf4-ckpt-32": {**FALCON_NF4, **CHECKPOINTING, "per_device_train_batch_size": 32},
    "falcon-nf4-ckpt-r64": {**FALCON_NF4, **CHECKPOINTING, "r": 64},
    "falcon-stock": {**FALCON_NF4, **CHECKPOINTING, "stock": True},
    "llama-nf4": LLAMA_NF4,
    "llama-nf4-ckpt": {**LLAMA_NF4, **CHECKPOINTING},
    "llama-bf16": {**LLAMA_NF4, "quantization": "none"},
    "llama-stock": {**LLAMA_NF4, **CHECKPOINTING, "stock": True},
    "falcon-nf4-answers": {**FALCON_NF4, "answers": True},
    "falcon-bf16-answers": {**FALCON_NF4, "quantization": "none", "answers": True},
    "falcon-t4-answers": {**FALCON_NF4, "answers": True, "t4": True},
    "llama-nf4-answers": {**LLAMA_NF4, "answers": True},
    "llama-bf16-answers": {**LLAMA_NF4, "quantization": "none", "answers": True},
} | {
    f"t4-{rows}": {**FALCON_NF4, **CHECKPOINTING, "per_device_train_batch_size": rows, "t4": True}
    for rows in (1, 2, 4, 8)
}
EAGER = ("falcon-bf16", "falcon-fp8", "falcon-nf4", "falcon-nf4-ckpt", "llama-nf4", "llama-nf4-ckpt", "llama-fp8")
VARIANTS |= {f"{name}-eager": {**VARIANTS[name], "eager": True} for name in EAGER}
FULL = ("falcon-fp8", "llama-nf4", "llama-nf4-ckpt")  # with rows that have no place left, as Unsloth's have none
VARIANTS |= {f"{name}-full": {**VARIANTS[name], "full": True} for name in FULL}
VARIANTS |= {f"{name}-keep": {**VARIANTS[name], "gradient_checkpointing": False} for name in ("t4-1", "t4-2", "t4-4")}


def build_shape(shape: str):
    """A model of this shape with random weights, in bfloat16 on the GPU."""
    from transformers import FalconConfig, FalconForCausalLM, LlamaConfig, LlamaForCausalLM

    special = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    if shape == "falcon-7b":  # FalconConfig's own defaults have this shape; bias and alibi are off
        config, kind = FalconConfig(bias=False, alibi=False, **special), FalconForCausalLM
    else:
        sizes = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
        heads = {"num_attention_heads": 32, "num_key_value_heads": 8}
        config, kind = LlamaConfig(**sizes, **heads, max_position_embeddings=8192, **special), LlamaForCausalLM
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = kind(config)
    torch.set_default_dtype(torch.float32)
    return model


def shape_folder(shape: str) -> Path:
    """Folder with the random model of this shape and a tokenizer of bytes; written on the first call (14-16 GB)."""
    folder = cache_folder() / f"bench-{shape}"
    if not (folder / "complete").exists():
        build_shape(shape).save_pretrained(folder)
        tiny.build_tokenizer().save_pretrained(folder)
        (folder / "complete").touch()
    return folder


def command_for(name: str, chosen: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """The command of a variant's process, and its environment: Unsloth has one of its own."""
    steps, warm_up = map(str, (chosen.steps, chosen.warm_up))
    if name in PEERS:
        kind, rows, checkpointing = PEERS[name]
        script = Path(__file__).with_name("unsloth_peer.py")
        command = [sys.executable, str(script), str(shape_folder("llama-8b")), kind, str(rows), str(checkpointing)]
        path = os.pathsep.join([str(chosen.unsloth), *os.environ.get("PYTHONPATH", "").split(os.pathsep)[:1]])
        return [*command, steps, warm_up], os.environ | {"PYTHONPATH": path}
    options = ["--steps", steps, "--warm-up", warm_up, "--here", *(["--profile"] if chosen.profile else [])]
    return [sys.executable, __file__, name, *options], dict(os.environ)


def full_rows(settings, count: int = 8000):
    """Conversations of 64 or 128 tokens, random letters: packed, they fill every row of 512 to its last place."""
    from datasets import Dataset

    from helpers.models.lengths import row_lengths

    def conversation(length: int) -> dict:
        answer = "".join(draws.choices("abcdefghijklmnopqrstuvwxyz ", k=length))
        return {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}]}

    draws = random.Random(0)
    (beside,) = row_lengths(settings, Dataset.from_list([conversation(1)]))
    return Dataset.from_list([conversation(draws.choice((64, 64, 128)) + 1 - beside) for _ in range(count)])


def forbid_what_a_t4_lacks() -> None:
    """Leaves only the kernels of compute capability 7.5, and 14.5 GiB; bfloat16 parameters are asserted away later."""
    from helpers.generate import four_bits
    from helpers.models import attention

    def missing(*args, **kwargs):
        raise AssertionError("a T4 has no varlen kernel")

    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    attention.varlen_attention = missing
    four_bits.kernel = lambda *_: None  # its instruction is of compute capability 8.0
    torch.cuda.set_per_process_memory_fraction(14.5 * 2**30 / torch.cuda.get_device_properties(0).total_memory)


def run_variant(name: str, steps: int, warm_up: int, profile: bool) -> dict:
    """Figures of one variant, in this process."""
    chosen = dict(VARIANTS[name])
    shape, stock, t4 = chosen.pop("shape"), chosen.pop("stock", False), chosen.pop("t4", False)
    answers, full = chosen.pop("answers", False), chosen.pop("full", False)
    if chosen.pop("eager", False):  # a step's passes are not recorded
        from helpers.train import speed as building

        building.can_record = lambda trainer: False
    build = stock_trainer if stock else our_trainer
    if t4:
        forbid_what_a_t4_lacks()
    machine = T4 if t4 else this_machine()
    folder = shape_folder(shape)
    settings = resolve(
        "datacenter",
        machine=machine,
        hub=Choice(True, "assumed"),
        **{"model": str(folder), "data": "shop_support", "max_steps": steps, "r": 16, "lora_alpha": 32} | chosen,
    )
    if answers:
        return run_answers(settings, name, t4)
    rows = full_rows(settings) if full else load_chat_data(settings.data, settings.data_format).train
    holder = []
    start = time.perf_counter()

    def built(*arguments):
        trainer = build(*arguments)
        holder.extend((trainer, time.perf_counter() - start, torch.cuda.max_memory_allocated()))
        torch.cuda.reset_peak_memory_stats()
        return trainer

    if profile:
        return profiled(built, settings, rows, name)
    figures = train_and_measure(built, settings, rows, [], warm_up=warm_up)
    trainer, load_seconds, load_peak = holder
    if t4:
        assert not any(p.dtype == torch.bfloat16 for p in trainer.model.parameters()), "a T4 has no bfloat16"
    return {
        "variant": name,
        "tokens_per_second": round(figures["tokens_per_second"], 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2),
        "load_peak_gib": round(load_peak / 2**30, 2),
        "load_seconds": round(load_seconds, 1),
        "tokens_a_step": round(figures["tokens"] / (steps - warm_up)),
        "losses": [round(loss, 4) for loss in figures["losses"]],
        "rows": figures["rows"],
        "settings": {k: v for k, v in settings.as_dict().items() if k not in ("reasons", "model")},
    }


def adapted_model(settings):
    """The settings' model with a LoRA adapter whose B is not zero, as after a training."""
    from peft import get_peft_model

    from helpers.models.load import load_model
    from helpers.models.lora import lora_config

    model = load_model(settings).model
    model = get_peft_model(model, lora_config(settings, model)).eval()
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-3)
    return model


def seconds_of(run) -> float:
    """Seconds of the fastest of three runs, after one of warm-up; the GPU is waited for at both ends."""
    run()
    seconds = []
    for _ in range(3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def run_answers(settings, name: str, t4: bool) -> dict:
    """Tokens a second of one greedy answer (64 tokens of prompt, 128 new), and of many, the adapter not merged.

    "plain": a pass for each token with the library's cache, as before there were recorded steps. "eager": the recorded
    step, started by Python; same_as: with how many of the 128 tokens the two begin in common.
    """
    from helpers.generate.decode import Decoder
    from helpers.generate.sampling import Sampling

    model = adapted_model(settings)
    loaded_bytes = torch.cuda.memory_allocated()
    prompt = torch.randint(20, 200, (64,), generator=torch.Generator().manual_seed(0)).tolist()
    sampling, decoder, plain = Sampling(max_new_tokens=128), Decoder(model), Decoder(model)
    plain.how = Choice(False, "to compare")
    figures = {"variant": name, "how": decoder.how.reason}
    start = time.perf_counter()
    next(decoder.tokens(prompt, Sampling(max_new_tokens=2), ()))
    figures["first_answer_seconds"] = round(time.perf_counter() - start, 3)
    tuned = list(decoder.tokens(prompt, sampling, ()))
    figures["how_then"] = decoder.how.reason
    figures["first_token_seconds"] = round(seconds_of(lambda: next(decoder.tokens(prompt, sampling, ()))), 3)
    figures["same_as_plain"] = agreeing(tuned, list(plain.tokens(prompt, sampling, ())))
    figures["same_as_eager"] = agreeing(tuned, list(Decoder(model, record=False).tokens(prompt, sampling, ())))
    for which, one in (("tuned", decoder), ("plain_tuned", plain)):
        figures[which] = round(128 / seconds_of(lambda one=one: list(one.tokens(prompt, sampling, ()))), 1)
    with model.disable_adapter():
        figures["base"] = round(128 / seconds_of(lambda: list(decoder.tokens(prompt, sampling, ()))), 1)
    figures["gib_beside_weights"] = round((torch.cuda.max_memory_allocated() - loaded_bytes) / 2**30, 2)
    return figures | ({} if t4 else many_answers(model, settings))


def agreeing(one: list[int], other: list[int]) -> int:
    """How many tokens two answers begin with in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def many_answers(model, settings) -> dict:
    """Seconds for 500 questions of 20 to 84 tokens, 64 new tokens each; and for 32 of them by `generate`."""
    from helpers.generate import generation
    from helpers.generate.batch import recorded_answers
    from helpers.generate.sampling import Sampling

    lengths = torch.randint(20, 85, (500,), generator=torch.Generator().manual_seed(0)).tolist()
    prompts = [torch.randint(20, 200, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in lengths]
    seconds = []
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        answers = recorded_answers(model, prompts, [64] * 500, [])
        seconds.append(time.perf_counter() - start)
    figures = {"questions_500_seconds": round(seconds[1], 2), "with_recording_seconds": round(seconds[0], 2)}
    figures["questions_tokens_per_second"] = round(sum(map(len, answers)) / seconds[1], 1)
    generation.recorded_answers = lambda *_: None
    tokenizer, few = load_tokenizer(settings), Sampling(max_new_tokens=64)
    with_generate = lambda: generation.continuations(model, tokenizer, prompts[:32], few)
    with_generate()
    start = time.perf_counter()
    made = with_generate()
    torch.cuda.synchronize()
    count = sum(map(len, made))
    return figures | {"generate_tokens_per_second": round(count / (time.perf_counter() - start), 1)}


def profiled(build, settings, rows, name: str) -> dict:
    """One step under torch's profiler after three of warm-up; the table of kernels, longest first."""
    from torch.profiler import ProfilerActivity, profile, schedule

    tables = []

    def keep(profiler):
        averages = profiler.key_averages()
        tables.append(averages.table(sort_by="self_cuda_time_total", row_limit=45, max_name_column_width=90))

    class Step(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            torch.cuda.synchronize()
            profiler.step()

    steps = schedule(wait=2, warmup=1, active=1, repeat=1)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, schedule=steps, on_trace_ready=keep) as profiler:
        train_and_measure(lambda *given: with_callback(build(*given), Step()), settings, rows, [])
    return {"variant": name, "table": tables[0]}


def with_callback(trainer, callback):
    """The trainer, with one more callback."""
    trainer.add_callback(callback)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", nargs="+", choices=["list", *VARIANTS, *PEERS], metavar="VARIANT")
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--warm-up", type=int, default=4)
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--unsloth", type=Path, help="folder of the packages that unsloth_peer.py names")
    parser.add_argument("--profile", action="store_true", help="print where the time of a step goes instead")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.variants == ["list"]:
        print("\n".join([*VARIANTS, *PEERS]))
        return
    if chosen.here:
        print("RESULT " + json.dumps(run_variant(chosen.variants[0], chosen.steps, chosen.warm_up, chosen.profile)))
        return
    if chosen.unsloth is None and set(chosen.variants) & set(PEERS):
        parser.error("Unsloth needs --unsloth FOLDER")
    for shape in sorted({VARIANTS[name]["shape"] if name in VARIANTS else "llama-8b" for name in chosen.variants}):
        shape_folder(shape)
    torch.cuda.empty_cache()
    results = []
    for name in chosen.variants:
        command, environment = command_for(name, chosen)
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
        lines = [line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        result = {"variant": name} | (json.loads(lines[0]) if lines else {"error": done.stderr[-1500:]})
        results.append(result)
        print(result.get("table") or json.dumps({k: v for k, v in result.items() if k != "settings"}), flush=True)
        content = {"date": str(date.today()), "machine": this_machine()._asdict(), "versions": versions()}
        write_json(chosen.json, {**content, "results": results})


if __name__ == "__main__":
    main()
