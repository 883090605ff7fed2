"""Proofs before a training: what no error would show, looked up on the trainer itself."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from helpers.data.conversation import KINDS, whole_messages
from helpers.data.order import is_trained
from helpers.machine.hardware import choose_dtype, this_machine
from helpers.models import attention
from helpers.models.load import inspect_model
from helpers.train.trainer import LoraTrainer, TrainingError


class Check(NamedTuple):
    """One row: its name, what was found, what is needed, whether that holds, and what to do if it does not."""

    name: str
    actual: str
    needed: str
    ok: bool
    remedy: str


def preflight(trainer: LoraTrainer, allow: tuple[str, ...] = (), report: Callable[[str], None] = print) -> list[Check]:
    """Prints what must hold before training, one row a proof, and stops when a row does not.

    trainer: from `build_trainer`. allow: names of rows that may fail, for a reader who knows better.
    Raises TrainingError with what to do.
    """
    checks = proofs(trainer)
    unknown = set(allow) - {check.name for check in checks}
    if unknown:
        raise TrainingError(f"there is no proof {sorted(unknown)}; there are: {', '.join(c.name for c in checks)}.")
    widths = [max(map(len, column)) for column in ([c.name for c in checks], [c.actual for c in checks])]
    for check in checks:
        mark = "ok" if check.ok else "allowed" if check.name in allow else "fix"
        report(f"[{mark}] {check.name:{widths[0]}}  {check.actual:{widths[1]}}  needed: {check.needed}")
    failed = [check for check in checks if not check.ok and check.name not in allow]
    if failed:
        reasons = " ".join(f"'{c.name}' is {c.actual}, needed: {c.needed}. {c.remedy}" for c in failed)
        raise TrainingError(f"training would go wrong. {reasons} To train all the same, allow the row by its name.")
    trainer.checked = True
    return checks


def proofs(trainer: LoraTrainer) -> list[Check]:
    """The rows of the preflight; each can fail."""
    checks = [*label_checks(trainer), isolation_check(trainer.model), gradient_check(trainer)]
    checks += [kernel_check(trainer), adapter_check(trainer)]
    if trainer.settings.quantization == "nf4":
        checks.insert(0, quantization_check(trainer.model))
    return checks


def quantization_check(model: torch.nn.Module) -> Check:
    """How many linear layers of the body are 4-bit."""
    report = inspect_model(model)
    quantized, all_of_them = report.quantized_linears, report.body_linears
    remedy = "Load the model with helpers.models.load.load_model, which quantizes Falcon's layers too."
    return Check("quantized", f"{quantized} of {all_of_them} layers", "all", quantized == all_of_them > 0, remedy)


def label_checks(trainer: LoraTrainer) -> list[Check]:
    """Trained spans against the answers in the data: each answer is one, with its end token, and nothing else is."""
    tokenizer = trainer.processing_class
    answers = [message for row in trainer.rows for message in whole_messages(row) if is_trained(message)]
    spans = [span for row in trainer.train_dataset for span in trained_spans(row["labels"])]
    ended = sum(span[-1] == tokenizer.eos_token_id for span in spans)
    trained = Counter(str(tokenizer.decode(span)).strip() for span in spans)
    expected = Counter(m["content"].strip() + tokenizer.eos_token for m in answers if not m.keys() & KINDS.keys())
    left = trained - expected
    with_more = [m for m in answers if m.keys() & KINDS.keys()]
    foreign = left.total() - sum(claimed(left, message) for message in with_more)
    cut = "Raise max_length, or see whether the template ends an answer with the end token inside its generation span."
    masked = "Put nothing but the answer inside the template's generation span, and keep assistant_only_loss=True."
    count = len(answers)
    return [
        Check("end tokens", f"{ended} of {count} answers", "all", ended == count == len(spans) > 0, cut),
        Check("human tokens", f"{foreign} spans beyond answers", "0", foreign == 0, masked),
    ]


def claimed(spans: Counter[str], message: dict) -> bool:
    """Whether one of the trained texts holds all parts of an answer with calls or thinking; it is taken out then."""
    parts = [message["content"].strip(), *(call["function"]["name"] for call in message.get("tool_calls", []))]
    text = next((text for text in spans if spans[text] and all(part in text for part in parts)), None)
    if text is not None:
        spans[text] -= 1
    return text is not None


def trained_spans(labels: list[int]) -> list[list[int]]:
    """The runs of trained tokens in one row: what stands between tokens with label -100."""
    spans: list[list[int]] = []
    open_span = False
    for label in labels:
        if label == -100:
            open_span = False
        elif open_span:
            spans[-1].append(label)
        else:
            spans.append([label])
            open_span = True
    return spans


def isolation_check(model: Any, length: int = 12) -> Check:
    """How far a document's logits move, against their spread, when another one stands before it in the packed row.

    Other kernels round differently: in bfloat16 a few percent in a model of seven billion random weights, where the
    largest of a million differences says little.
    """
    vocabulary = min(model.get_input_embeddings().num_embeddings, 1000)
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(3, 3 + 2 * length, device=device).remainder(vocabulary)[None]  # (1, 2 * length)
    positions = torch.arange(length, device=device).repeat(2)[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, length:]
        alone = model(input_ids=ids[:, length:], use_cache=False).logits[0]
    model.train(was_training)
    share = ((packed - alone).float().std() / alone.float().std()).item()
    bar = 1e-3 if packed.dtype == torch.float32 else 1e-1
    remedy = "Set ATTENTION = 'sdpa', or another kernel of helpers/models/attention.py."
    return Check("isolated", f"logits move by {share:.2%}", f"below {bar:.1%} of their spread", share < bar, remedy)


def gradient_check(trainer: LoraTrainer) -> Check:
    """Cosine between the gradient of a batch and that of its documents one by one, after an evaluation pass.

    Documents that see each other, wrong masks and layers that lost their backward pass all turn it.
    Upstream: a batch gets to the model's device through the private Trainer._prepare_inputs.
    Breaks: the preflight ends in an AttributeError.
    Drift: test_upstream.py::test_a_batch_is_still_prepared_by_this_name
    """
    batch, alone = one_batch(trainer)
    model, was_training = trainer.model, trainer.model.training
    reference: Any = sum(adapter_gradient(trainer, document) for document in alone)
    model.eval()
    with torch.no_grad():
        trainer.compute_loss(model, trainer._prepare_inputs(alone[0]))
    cosine = torch.cosine_similarity(reference, adapter_gradient(trainer, batch), dim=0).item()
    model.train(was_training)
    repacked = sum(has_no_backward(module) for module in model.modules())
    actual = f"cosine {cosine:.4f}" + (f", {repacked} layers without backward pass" if repacked else "")
    remedy = "Load the model again with load_model; if it stays, set ATTENTION = 'sdpa'."
    return Check("gradient", actual, "above 0.99, as of the documents alone", cosine > 0.99 and not repacked, remedy)


def has_no_backward(module: torch.nn.Module) -> bool:
    """Whether bitsandbytes has repacked this layer for a CPU kernel that gives no gradient."""
    return bool(getattr(getattr(getattr(module, "weight", None), "quant_state", None), "packing_format_for_cpu", False))


def one_batch(trainer: LoraTrainer) -> tuple[dict, list[dict]]:
    """A batch of a few short documents as the trainer's collator makes it, and each document by itself."""
    rows = trainer.train_dataset.select(range(min(64, len(trainer.train_dataset))))
    documents = [document for row in rows for document in split_row(row) if trained_spans(document["labels"])]
    if not documents:
        raise TrainingError("no document has a trained token: raise max_length, or look at the template.")
    documents = sorted(documents, key=lambda document: len(document["input_ids"]))[:3]
    return trainer.data_collator(documents), [trainer.data_collator([document]) for document in documents]


def split_row(row: dict) -> list[dict]:
    """The documents of a row of TRL's: as many as `seq_lengths` says where it is packed, else one."""
    lengths, documents, first = row.get("seq_lengths") or [len(row["input_ids"])], [], 0
    for length in lengths:
        part = slice(first, first + length)
        documents.append({"input_ids": row["input_ids"][part], "labels": row["labels"][part], "seq_lengths": [length]})
        first += length
    return documents if row.get("seq_lengths") else [{k: v for k, v in documents[0].items() if k != "seq_lengths"}]


def adapter_gradient(trainer: LoraTrainer, batch: dict) -> torch.Tensor:
    """Gradient of the summed loss of a batch with respect to the trained parameters, as one float64 vector."""
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(dict(batch)), num_items_in_batch=1)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    return torch.cat([gradient.flatten().double().cpu() for gradient in gradients if gradient is not None])


def kernel_check(trainer: LoraTrainer) -> Check:
    """The dtype of the products and the attention kernel, with the settings' reason for it."""
    settings = trainer.settings
    kernel, native = attention.kernel_of(trainer.model), choose_dtype(this_machine()).value
    computes = settings.autocast or settings.dtype
    emulated = settings.device == "cuda" and computes == "bfloat16" and native != torch.bfloat16
    right = kernel == settings.attention and not emulated and (settings.device == "cuda" or computes != "float16")
    remedy = "Load the model with load_model(settings), and leave dtype and autocast to the settings."
    reason = settings.reasons.get("attention", "as in the settings")
    return Check("kernel", f"{kernel or 'unknown'} in {computes}", f"{settings.attention}: {reason}", right, remedy)


def adapter_check(trainer: LoraTrainer) -> Check:
    """How many parameters are trained: LoRA's alone, in float32."""
    trained = [(n, p) for n, p in trainer.model.named_parameters() if p.requires_grad]
    count, share = sum(p.numel() for _, p in trained), 0.0
    if trained:
        share = count / (count + inspect_model(trainer.model).parameters)
    right = bool(trained) and all("lora_" in n and p.dtype == torch.float32 for n, p in trained)
    remedy = "Build the trainer with build_trainer, which freezes the model and keeps the adapter in float32."
    return Check("adapter", f"{count:,} parameters ({share:.2%})", "LoRA's only, in float32", right, remedy)
