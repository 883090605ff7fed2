"""Unsloth on the Llama-3-8B shape, for `gpu.py --unsloth SITE`: trains with its trainer, or answers one question.

Runs in an environment of its own, since it wants older releases than this project: `SITE` is a folder of wheels,
unpacked: unsloth and unsloth_zoo 2026.10.9, trl 1.15, transformers 5.17, datasets 4.8, huggingface_hub 1.33, torchao,
cut_cross_entropy, hf_transfer, msgspec, tyro, structlog, typer, diffusers. Imports nothing of this project.
`python unsloth_peer.py MODEL train|answers ROWS CHECKPOINTING STEPS WARM_UP`
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

LENGTH = 512
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(checkpointing):
    """The model in NF4 with an adapter of r=16 on every linear layer, as gpu.py has it."""
    from unsloth import FastLanguageModel

    options = {"max_seq_length": LENGTH, "load_in_4bit": True, "dtype": None}
    model, tokenizer = FastLanguageModel.from_pretrained(sys.argv[1], **options)
    tuned = FastLanguageModel.get_peft_model(
        model,
        r=16,
        lora_alpha=32,
        lora_dropout=0,
        bias="none",
        target_modules=ADAPTED,
        use_gradient_checkpointing="unsloth" if checkpointing else False,
    )
    return tuned, tokenizer


def rows_of_bytes(count):
    """Rows of LENGTH tokens without padding: the shop's texts as bytes, one after the other."""
    file = Path(__file__).resolve().parents[1] / "data" / "shop_support" / "train.jsonl"
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    ids = [20 + byte % 200 for byte in "\n".join(texts).encode()]
    starts = range(0, len(ids) - LENGTH, LENGTH)
    rows = [ids[start : start + LENGTH] for start in starts]
    return [{"input_ids": rows[i % len(rows)], "attention_mask": [1] * LENGTH} for i in range(count)]


def train(rows, checkpointing, steps, warm_up):
    """Tokens a second after the first `warm_up` steps, the GPU waited for at both ends; and the losses."""
    model, tokenizer = load(checkpointing)
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    marks = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step in (warm_up, steps):
                torch.cuda.synchronize()
                marks.append(time.perf_counter())

    options = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_length=LENGTH,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=1,
        max_steps=steps,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        bf16=True,
        learning_rate=2e-4,
        optim="adamw_torch_fused",
        disable_tqdm=True,
    )
    data = Dataset.from_list(rows_of_bytes(rows * steps))
    trainer = SFTTrainer(model=model, train_dataset=data, processing_class=tokenizer, args=options, callbacks=[Clock()])
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    return {
        "tokens_per_second": round(rows * LENGTH * (steps - warm_up) / (marks[1] - marks[0]), 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row],
    }


def answer():
    """Tokens a second of 128 greedy ones after 64, the adapter on and not merged; the best of three."""
    model, _ = load(False)
    import torch
    from unsloth import FastLanguageModel

    FastLanguageModel.for_inference(model)
    ids = torch.randint(20, 200, (1, 64), device="cuda")
    wanted = {"max_new_tokens": 128, "min_new_tokens": 128, "do_sample": False, "pad_token_id": 0, "eos_token_id": 1}
    seconds = []
    for _ in range(4):
        torch.cuda.synchronize()
        start = time.perf_counter()
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **wanted)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"tuned": round(128 / min(seconds[1:]), 1)}


def main():
    os.environ |= {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}
    kind, rows, checkpointing, steps, warm_up = sys.argv[2], *map(int, sys.argv[3:])
    result = train(rows, bool(checkpointing), steps, warm_up) if kind == "train" else answer()
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
