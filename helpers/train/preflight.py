"""Proofs before a training: what no error would show, looked up on the trainer itself."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from helpers.adapted import base_of
from helpers.behaviour import moved_by_a_neighbour, moved_by_what_follows
from helpers.data.chat import begin_ids, prompt_text
from helpers.data.conversation import tools_in, whole_messages
from helpers.data.ends import end_ids, trained_end, turn_end
from helpers.data.order import is_trained
from helpers.data.rendering import tokens_of
from helpers.limits import PROOFS
from helpers.machine.hardware import choose_dtype, is_out_of_memory, this_machine
from helpers.machine.language import joined, listed, phrase, tr
from helpers.machine.tables import Table, columns_of, show
from helpers.models import attention
from helpers.models.attention import AttentionError
from helpers.models.load import inspect_model
from helpers.train.reference import library_forward, own_loss
from helpers.train.spans import Text, foreign_runs, runs_of, text_of_row
from helpers.train.trainer import LoraTrainer, TrainingError


class Check(NamedTuple):
    """One row: its name, what was found, what is needed, whether that holds, and what to do if it does not.

    name: English, as `allow` takes it; `tr` shows it.
    """

    name: str
    actual: str
    needed: str
    ok: bool
    remedy: str


def preflight(
    trainer: LoraTrainer, allow: tuple[str, ...] = (), report: Callable[[str], None] | None = None
) -> list[Check]:
    """Shows what must hold before training, one row a proof, and stops when a row does not.

    trainer: from `build_trainer`. allow: names of rows that may fail, for a reader who knows better, in English or as
    they are shown. report: takes each row as a line; without it they are shown as a table.
    Raises TrainingError with what to do.
    """
    names = {said: name for name in PROOFS for said in (name, tr(name))}
    if unknown := sorted(set(allow) - set(names)):
        known = listed(map(tr, PROOFS))
        raise TrainingError(tr("there is no proof {names}; there are: {known}.", names=unknown, known=known))
    try:
        checks = proofs(trainer)
    except (AttentionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, TrainingError) or is_out_of_memory(error):
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise TrainingError(
            tr(
                "this model does something that the preflight cannot follow ({said}). Set attention='sdpa' (MORE in "
                "03); if it stays, choose another model of those in docs/models.md.",
                said=said,
            )
        ) from error
    allowed: set[str] = {names[name] for name in allow}
    show_checks(checks, allowed, report)
    if failed := [check for check in checks if not check.ok and check.name not in allowed]:
        raise TrainingError(refusal_of(failed))
    trainer.checked = True
    return checks


def show_checks(checks: list[Check], allowed: set[str], report: Callable[[str], None] | None) -> None:
    """Shows the rows of the preflight as a table, or hands each as a line to `report`."""
    marks = ["ok" if check.ok else "allowed" if check.name in allowed else "fix" for check in checks]
    rows = [(f"[{m}]", tr(c.name), c.actual, c.needed) for m, c in zip(marks, checks, strict=True)]
    widths = [max(map(columns_of, column)) for column in zip(*(row[1:3] for row in rows), strict=True)]
    lines = []
    for mark, *cells, needed in rows:
        padded = [cell + " " * (width - columns_of(cell)) for cell, width in zip(cells, widths, strict=True)]
        lines.append(f"{mark} {'  '.join(padded)}  {tr('needed: {what}', what=needed)}")
    if report is None:
        show(Table(("", tr("check"), tr("actual"), tr("needed")), rows, text="\n".join(lines)))
    else:
        for line in lines:
            report(line)


def refusal_of(failed: list[Check]) -> str:
    """Why the training is not begun: each row that does not hold, and what to do."""
    facts = [{"name": tr(c.name), "found": c.actual, "wanted": c.needed, "remedy": c.remedy} for c in failed]
    reasons = joined(tr("'{name}' is {found}, needed: {wanted}. {remedy}", **one) for one in facts)
    return tr("training would go wrong. {reasons} To train all the same, allow the row by its name.", reasons=reasons)


def proofs(trainer: LoraTrainer) -> list[Check]:
    """The rows of the preflight; each can fail."""
    checks = [*label_checks(trainer), ends_check(trainer), isolation_check(trainer), *loss_checks(trainer)]
    checks += [kernel_check(trainer), adapter_check(trainer)]
    if trainer.settings.quantization != "none":
        checks.insert(0, quantization_check(trainer.model))
    return checks


def quantization_check(model: torch.nn.Module) -> Check:
    """How many linear layers of the body are 4-bit, or 8-bit."""
    report = inspect_model(model)
    quantized, all_of_them = report.quantized_linears, report.body_linears
    remedy = tr("Load the model with helpers.models.load.load_model, which quantizes Falcon's layers too.")
    found = tr("{n} of {all} layers", n=quantized, all=all_of_them)
    return Check(phrase("quantized"), found, tr("all"), quantized == all_of_them > 0, remedy)


def label_checks(trainer: LoraTrainer) -> list[Check]:
    """Trained spans against the answers in the data: each answer is one, with its end token, and nothing else is.

    By token ids and their places in the text that the template writes (spans.foreign_runs); nothing is decoded.
    """
    tokenizer, stops = trainer.processing_class, end_ids(trainer.processing_class, trainer.model)
    count = sum(is_trained(message) for row in trainer.rows for message in whole_messages(row))
    documents = [part for row in trainer.train_dataset for part in split_row(row)]
    spans = [part["labels"][first:last] for part in documents for first, last in runs_of(part["labels"])]
    ended = sum(trained_end(tokenizer, trainer.model, span) in stops for span in spans)
    foreign = foreign_runs(tokenizer, trainer.rows, documents)
    cut = tr("Raise max_length, or see whether the template ends an answer with an end token in its generation span.")
    masked = tr("Put nothing but the answer in the template's generation span, and keep assistant_only_loss=True.")
    found = tr("{ended} of {count} answers", ended=ended, count=count)
    beyond = tr("{n} spans beyond answers", n=foreign)
    return [
        Check(phrase("end tokens"), found, tr("all"), ended == count == len(spans) > 0, cut),
        Check(phrase("human tokens"), beyond, "0", foreign == 0, masked),
    ]


def ends_check(trainer: LoraTrainer) -> Check:
    """Every row begins as the tokenizer begins texts, prompts too, and what ends an answer ends a generation.

    What the model is given to answer must be the beginning of what it was trained on, for every answer of the first
    rows: some templates of thinking models begin every answer with <think>, and write none into a row.
    """
    tokenizer, begin = trainer.processing_class, begin_ids(trainer.processing_class)
    documents = [part["input_ids"] for row in trainer.train_dataset for part in split_row(row)]
    count = len(begin)  # a template may write it before every turn, too; only two in a row are one too many
    once = sum(ids[:count] == begin and (not begin or ids[count : count + 1] != begin[:1]) for ids in documents)
    prompts = list(asked_and_written(trainer))
    written, stops = turn_end(tokenizer), end_ids(tokenizer, trainer.model)
    stopped = written is not None and written in stops
    names = listed(map(repr, tokenizer.convert_ids_to_tokens(stops)))
    begun = "".join(tokenizer.convert_ids_to_tokens(begin)) or tr("no token")
    facts = {"n": once, "all": len(documents), "begun": begun, "names": names}
    actual = tr("{n} of {all} rows begin with {begun} once; generation stops at {names}", **facts)
    needed = tr("all, and the template's end among them")
    other = next((prompt for prompt, row in prompts if not continues_prompt(prompt, row)), None)
    if other:
        actual += tr("; a prompt ends with {text!r}, and its row does not go on from there", text=other.text[-24:])
        needed += tr(", and prompts as rows begin")
    remedy = tr("Set TEMPLATE = 'guanaco', or give the tokenizer a template that ends each answer with an end token.")
    right = once == len(documents) and stopped and other is None
    right = right and all(prompt.input_ids[:count] == begin for prompt, _ in prompts)
    return Check(phrase("begin and end"), actual, needed, right, remedy)


def asked_and_written(trainer: LoraTrainer, most: int = 32) -> Iterator[tuple[Text, Text]]:
    """(a trained answer's conversation up to it as it would be asked, the row as the template writes it), of the first
    rows; a greeting before the first question is not asked for."""
    tokenizer = trainer.processing_class
    as_text = lambda text: Text(text, *tokens_of(tokenizer, text))
    for row in trainer.rows.select(range(min(most, len(trainer.rows)))):
        messages, tools = whole_messages(row), tools_in(row)
        written = as_text(text_of_row(tokenizer, messages, tools))
        for index, message in enumerate(messages):
            if index and is_trained(message):
                yield as_text(prompt_text(tokenizer, messages[:index], tools)), written


def continues_prompt(prompt: Text, row: Text) -> bool:
    """Whether a row is a prompt and what follows, in its ids too; the last may be joined with the answer."""
    return row.text.startswith(prompt.text) and row.input_ids[: len(prompt.input_ids) - 1] == prompt.input_ids[:-1]


def isolation_check(trainer: LoraTrainer) -> Check:
    """How far a document's logits move when another one stands before it in the row, or when it goes on.

    Where rows are padded, each is one document, and only the second is asked.
    """
    packed, after = not trainer.padded, moved_by_what_follows(trainer.model)
    before = moved_by_a_neighbour(trainer.model) if packed else None
    actual = tr("logits move by {share:.2%}", share=before.share) if before else tr("one document a row")
    remedy = tr("Set attention='sdpa' or 'eager' (MORE in 03); if it stays, this family cannot keep documents apart.")
    if not after.hardly:
        actual += tr(", by {share:.2%} when a text goes on", share=after.share)
        remedy = tr("Choose another model: this one reads a text from both sides, and does not continue it.")
    right = after.hardly and (before is None or before.hardly)
    return Check(phrase("isolated"), actual, tr("below {most:.1%} of their spread", most=after.most), right, remedy)


def loss_checks(trainer: LoraTrainer) -> list[Check]:
    """Loss and gradient of a batch as training makes them, after an evaluation pass, against the model's own.

    Its own are those of `model(labels=...)`, its documents one by one, with the library's attention, norms, products
    and head. What a family does to its logits, documents that see each other, wrong masks and layers that lost their
    backward pass all show here. 16 bits round the sums, and other kernels do so differently.
    Upstream: a batch gets to the model's device through the private Trainer._prepare_inputs.
    Breaks: the preflight ends in an AttributeError.
    Drift: test_upstream.py::test_a_batch_is_still_prepared_by_this_name
    """
    batch, alone = one_batch(trainer)
    model, was_training = trainer.model, trainer.model.training
    remedy = tr("Load the model again with load_model; if it stays, set attention='sdpa' (MORE in 03).")
    try:
        with library_forward(model):
            own, reference = added_up([loss_and_gradient(trainer, document, own=True) for document in alone])
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        found = tr("unknown: the model's own fails ({error})", error=error)
        return [Check(phrase("loss"), found, tr("that it can be compared"), False, remedy)]
    model.eval()
    with torch.no_grad():
        trainer.compute_loss(model, trainer._prepare_inputs(alone[0]))
    loss, gradient = loss_and_gradient(trainer, batch)
    model.train(was_training)
    cosine = torch.cosine_similarity(reference, gradient, dim=0).item()
    length = (gradient.norm() / reference.norm()).item()
    exact = not trainer.settings.autocast and trainer.settings.dtype == "float32"
    loss_bar, length_bar = (1e-3, 1e-2) if exact else (1e-2, 5e-2)
    if trainer.settings.quantization == "fp8":
        loss_bar = 3e-2  # the model's own multiplies unpacked weights in 16 bits; an E4M3 number has 3 bits of mantissa
    same = abs(loss - own) <= loss_bar * abs(own) and abs(length - 1) <= length_bar
    repacked = sum(has_no_backward(module) for module in model.modules())
    actual = tr("cosine {n:.4f}", n=cosine)
    if repacked:
        actual += tr(", {n} layers without backward pass", n=repacked)
    facts = {"loss": loss, "own": own, "length": length, "loss_bar": loss_bar, "length_bar": length_bar}
    found = tr("{loss:.4g}, the model's own {own:.4g}; gradient {length:.3f} times as long", **facts)
    needed = tr("the model's own within {loss_bar:.1%}, its gradient within {length_bar:.0%}", **facts)
    slower = tr(" Or set trainer.fast_head = False: the model's own forward pass makes the loss then.")
    above = tr("above 0.99, as of the documents alone")
    return [
        Check(phrase("loss"), found, needed, same, remedy + slower),
        Check(phrase("gradient"), actual, above, cosine > 0.99 and not repacked, remedy),
    ]


def added_up(pairs: list[tuple[float, torch.Tensor]]) -> tuple[float, torch.Tensor]:
    """The sum of losses, and of gradients."""
    losses, gradients = zip(*pairs, strict=True)
    return sum(losses), torch.stack(gradients).sum(0)


def has_no_backward(module: torch.nn.Module) -> bool:
    """Whether bitsandbytes has repacked this layer for a CPU kernel that gives no gradient."""
    return bool(getattr(getattr(getattr(module, "weight", None), "quant_state", None), "packing_format_for_cpu", False))


def one_batch(trainer: LoraTrainer) -> tuple[dict, list[dict]]:
    """A batch of a few short documents as the trainer's collator makes it, and each document by itself."""
    rows = trainer.train_dataset.select(range(min(64, len(trainer.train_dataset))))
    documents = [document for row in rows for document in split_row(row) if runs_of(document["labels"])]
    if not documents:
        raise TrainingError(tr("no document has a trained token: raise max_length, or look at the template."))
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


def loss_and_gradient(trainer: LoraTrainer, batch: dict, own: bool = False) -> tuple[float, torch.Tensor]:
    """Summed loss of a batch, and its gradient with respect to the trained parameters as one float64 vector.

    own: as the model itself makes it, for a single document. A model that draws random numbers while it trains is
    compared as it answers, without them.
    """
    trainer.model.train(not trainer.is_random)
    inputs: Any = trainer._prepare_inputs(dict(batch))
    if own:
        ids = inputs["input_ids"]
        with trainer.accelerator.autocast():
            loss = own_loss(trainer.model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, inputs["labels"])
    else:
        # Of several processes each computes the sum times their number, for DDP divides by it.
        loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=trainer.args.world_size)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    vector = torch.cat([gradient.flatten().double().cpu() for gradient in gradients if gradient is not None])
    return loss.item(), vector


def kernel_check(trainer: LoraTrainer) -> Check:
    """The dtype of the products and the attention kernel, with the settings' reason for it."""
    settings = trainer.settings
    kernel, native = attention.kernel_of(trainer.model), choose_dtype(this_machine()).value
    computes = settings.autocast or settings.dtype
    emulated = settings.device == "cuda" and computes == "bfloat16" and native != torch.bfloat16
    wanted = attention.serving(base_of(trainer.model), settings.attention, settings.max_length)
    right = kernel == wanted.value and not emulated and (settings.device == "cuda" or computes != "float16")
    remedy = tr("Load the model with load_model(settings), and leave dtype and autocast to the settings.")
    reason = settings.reasons.get("attention", "") if wanted.value == settings.attention else wanted.reason
    needed = tr("{kernel}: {why}", kernel=wanted.value, why=tr(reason or wanted.reason))
    found = tr("{kernel} in {dtype}", kernel=kernel or tr("unknown"), dtype=computes)
    return Check(phrase("kernel"), found, needed, right, remedy)


def adapter_check(trainer: LoraTrainer) -> Check:
    """How many parameters are trained: LoRA's alone, in float32."""
    trained = [(n, p) for n, p in trainer.model.named_parameters() if p.requires_grad]
    count, share = sum(p.numel() for _, p in trained), 0.0
    if trained:
        share = count / (count + inspect_model(trainer.model).parameters)
    right = bool(trained) and all("lora_" in n and p.dtype == torch.float32 for n, p in trained)
    remedy = tr("Build the trainer with build_trainer, which freezes the model and keeps the adapter in float32.")
    found = tr("{count:,} parameters ({share:.2%})", count=count, share=share)
    return Check(phrase("adapter"), found, tr("LoRA's only, in float32"), right, remedy)
