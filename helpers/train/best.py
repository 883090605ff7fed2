"""The best evaluation of a training: its weights are kept, and a training that no longer improves is stopped."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState

from helpers.adapter_file import adapter_fault
from helpers.data.facts import has_facts
from helpers.generate.generation import generate
from helpers.machine.card import read_card
from helpers.machine.language import phrase, tr
from helpers.machine.paths import atomic, writes_to
from helpers.machine.processes import here, sharded
from helpers.models.starts import start_of
from helpers.run import Run

if TYPE_CHECKING:
    from helpers.settings import Settings
    from helpers.train.checkpoints import Checkpoint
    from helpers.train.trainer import LoraTrainer

LOGGED = {"loss": "eval_loss", "fact_accuracy": "eval_fact_accuracy"}  # settings.best_by, and its name in the log
WORDS = {"loss": phrase("evaluation loss"), "fact_accuracy": phrase("facts right")}
UNREADABLE = (OSError, SafetensorError, KeyError, ValueError, RuntimeError)  # of weights that are not whole


class Point(NamedTuple):
    """One evaluation: the step after which it was made, and its value."""

    step: int
    value: float


def gain(settings: Settings, before: float, now: float) -> float:
    """By how much `now` is better than `before`: a loss should fall, a share of right answers rise."""
    return before - now if settings.best_by == "loss" else now - before


def best_of(settings: Settings, points: list[Point]) -> Point | None:
    """The best evaluation; values that are not finite never are. Of equal ones the first, of equal facts the last.

    Facts are counted on a few rows, so many evaluations are equal, and the later one has mostly learned more.
    """
    finite, sign = [point for point in points if math.isfinite(point.value)], -1 if settings.best_by == "loss" else 1
    return max(finite, key=lambda p: (gain(settings, 0.0, p.value), sign * p.step), default=None)


def waited(settings: Settings, points: list[Point]) -> int:
    """How many evaluations there were since the last that was better by more than early_stopping_threshold."""
    mark, count = math.nan, 0
    for point in points:
        better = math.isnan(mark) or gain(settings, mark, point.value) > settings.early_stopping_threshold
        if better and math.isfinite(point.value):
            mark, count = point.value, 0
        else:
            count += 1
    return count


def points_of(settings: Settings, log_history: list[dict]) -> list[Point]:
    """The evaluations in a Trainer's log, once a step; the newest of two of the same step counts."""
    name = LOGGED[settings.best_by]
    return [Point(*pair) for pair in sorted({e["step"]: float(e[name]) for e in log_history if name in e}.items())]


def why_best(settings: Settings, points: list[Point], best: Point) -> str:
    """Why the weights of an evaluation are kept, in words."""
    facts = {"by": WORDS[settings.best_by], "n": len(points), "best": best.value}
    if len(points) == 1:
        return phrase("the only {by} so far, {best:.4g}", **facts)
    last = {"last": points[-1].value, "at": points[-1].step}
    return phrase(
        "the best {by} of {n} evaluations, {best:.4g}; the last, at step {at}, was {last:.4g}", **facts, **last
    )


def is_over(settings: Settings, checkpoint: Checkpoint | None) -> bool:
    """Whether a checkpoint is of a training that has stopped early: then nothing is left to train."""
    if checkpoint is None or not settings.early_stopping:
        return False
    state = TrainerState.load_from_json(str(checkpoint.folder / "trainer_state.json"))
    return waited(settings, points_of(settings, state.log_history)) >= settings.early_stopping


class AlreadyOver(Exception):
    """Ends a loop before its first step: the evaluation that a stop had left out was the last that is allowed."""


class Best(TrainerCallback):
    """Keeps the weights of the best evaluation and ends a training that does not improve, as the settings ask.

    Everything is worked out from the Trainer's own log, which its checkpoints hold: so a training that was stopped or
    killed goes on as if it had not been. The weights lie in the run's folder as best/step-N.safetensors; an older one
    goes only once a checkpoint knows of the newer.
    Source: early stopping as in Prechelt 1998 ("Early Stopping - But When?"); transformers' EarlyStoppingCallback
    counts in itself, and begins anew after a kill.
    """

    def __init__(self, trainer: LoraTrainer, run: Run, report: Callable[[str], None] = print):
        from helpers.train.trainer import TrainingError

        self.trainer, self.run, self.report, self.settings = trainer, run, report, run.settings
        self.folder = run.folder / "best"
        self.active = self.settings.keep_best or self.settings.early_stopping > 0
        self.begun = 0  # the step of the checkpoint that it goes on from
        if self.active and trainer.args.eval_strategy == "no":
            raise TrainingError(
                tr("early_stopping and keep_best need held-out rows: give build_trainer an evaluation.")
            )
        if self.settings.keep_best and sharded():
            raise TrainingError(
                tr("keep_best does not work where FSDP shares out the weights: use DDP, or leave it out.")
            )

    def file(self, step: int) -> Path:
        """Where the weights of a step's evaluation lie."""
        return self.folder / f"step-{step}.safetensors"

    def kept(self) -> dict[int, Path]:
        """The weights that lie there, by their step."""
        files = {path.stem.removeprefix("step-"): path for path in self.folder.glob("step-*.safetensors")}
        return {int(step): path for step, path in files.items() if step.isdigit()}

    def remove(self, wanted: Callable[[int], bool]) -> None:
        """Removes the weights of all steps but those wanted."""
        for step, path in self.kept().items():
            if here().first and not wanted(step):
                path.unlink(missing_ok=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.global_step and here().first:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.begun = state.global_step
        self.remove(lambda step: step <= state.global_step)  # what came after the checkpoint is trained again

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.active and state.global_step >= state.max_steps:
            control.should_evaluate = True  # else the last steps could never be the best

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.active:
            return
        if self.settings.best_by != "loss":
            self.trainer.log({LOGGED[self.settings.best_by]: self.facts_right()})
        points = points_of(self.settings, state.log_history)
        if self.settings.keep_best and points[-1] == best_of(self.settings, points):
            self.keep(state.global_step)
            control.should_save = state.global_step > 0
        if 0 < self.settings.early_stopping <= waited(self.settings, points) and state.global_step < state.max_steps:
            self.report(tr("stopping early at step {step}: {why}", step=state.global_step, why=self.why_early()))
            control.should_training_stop = control.should_save = True
            if state.global_step == self.begun > 0:
                raise AlreadyOver

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        best = best_of(self.settings, points_of(self.settings, state.log_history))
        if best and self.file(best.step).exists():
            self.remove(lambda step: step == best.step)

    def keep(self, step: int) -> None:
        """Writes what is trained, and marks it in the log; a full disk does not end the training."""
        if here().first:
            self.run.history.mark(step, "best")
            self.write(step)

    def write(self, step: int) -> None:
        """Writes what is trained, whole or not at all."""
        weights = {
            n: p.detach().cpu().contiguous() for n, p in self.trainer.model.named_parameters() if p.requires_grad
        }
        try:
            self.folder.mkdir(exist_ok=True)
            with atomic(self.file(step)) as temporary:
                save_file(weights, temporary)
        except (OSError, SafetensorError) as error:
            self.report(
                tr(
                    "the best weights, of step {step}, could not be kept ({error}); training goes on",
                    step=step,
                    error=error,
                )
            )

    def facts_right(self) -> float:
        """`share_right`. Raises TrainingError where no watched row says which facts its answer must have."""
        from helpers.train.trainer import TrainingError

        if math.isnan(share := self.share_right()):
            raise TrainingError(
                tr(
                    "best_by='fact_accuracy' needs held-out rows with `match`, the facts of their answers "
                    "(docs/data.md): give them, or let the loss decide (best_by='loss')."
                )
            )
        return share

    def share_right(self) -> float:
        """The share of the watched questions whose answers have their facts; the first process decides for all."""
        model, rows = self.trainer.accelerator.unwrap_model(self.trainer.model), list(self.trainer.watched_rows or [])
        training = model.training
        model.eval()
        try:
            with torch.random.fork_rng():
                asked = [row["messages"][:-1] for row in rows]
                answers = generate(model, self.trainer.processing_class, asked, max_new_tokens=self.room())
        finally:
            model.train(training)
        right = [has_facts(answer.text, row) for answer, row in zip(answers, rows, strict=True)]
        known = [one for one in right if one is not None]
        share = torch.tensor([sum(known) / len(known) if known else math.nan], device=self.trainer.args.device)
        return float(self.trainer.accelerator.gather(share)[0])

    def room(self) -> int:
        """New tokens of an answer, at most."""
        return self.settings.max_new_tokens

    def left_out(self, checkpoint: Checkpoint, total: int) -> bool:
        """Whether a stop kept the evaluation at a checkpoint's step from being made: it is counted, so it is due."""
        last = self.active and checkpoint.step >= total
        if checkpoint.step % max(1, int(self.trainer.args.eval_steps or 1)) and not last:
            return False
        state = TrainerState.load_from_json(str(checkpoint.folder / "trainer_state.json"))
        name = LOGGED[self.settings.best_by] if self.active else LOGGED["loss"]
        return checkpoint.step not in [entry["step"] for entry in state.log_history if name in entry]

    def why_early(self) -> str:
        """The rule that ended the training, in words."""
        count, threshold = self.settings.early_stopping, self.settings.early_stopping_threshold
        facts = {"by": WORDS[self.settings.best_by], "count": count, "threshold": threshold}
        if threshold:
            return phrase("{by} has not improved by more than {threshold:g} in {count} evaluations", **facts)
        return phrase("{by} has not improved in {count} evaluations", **facts)

    def put_back(self) -> dict:
        """Gives the model the best weights, where they are kept; returns what the run card says of it.

        A file that is damaged or gone costs the choice, and is said: the weights stay those of the last step.
        """
        state = self.trainer.state
        points = points_of(self.settings, state.log_history) if self.active else []
        early = self.settings.early_stopping and waited(self.settings, points) >= self.settings.early_stopping
        said: dict[str, Any] = {"finished": True, "stopped_early": self.why_early()} if early else {}
        best = best_of(self.settings, points)
        if not self.settings.keep_best or best is None:
            return said
        try:
            self.give(best)
        except UNREADABLE as error:
            self.report(
                tr(
                    "the best weights, of step {step}, cannot be read ({error}): those of the last step are saved",
                    step=best.step,
                    error=error,
                )
            )
            self.set_aside()
            return said
        why = why_best(self.settings, points, best)
        self.report(tr("the adapter is that of step {step}: {why}", step=best.step, why=why))
        losses = {entry["step"]: entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry}
        kept = {"step": best.step, "by": self.settings.best_by, "value": best.value, "why": why}
        return {**said, "best": kept, "evaluation_loss": losses.get(best.step)}

    def give(self, best: Point) -> None:
        """Gives the model the best weights: those that were kept, or those of the run's adapter if its card has them.

        Raises one of UNREADABLE, and leaves the model as it is, where neither is whole.
        """
        model, file = self.trainer.model, self.file(best.step)
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        try:
            weights = load_file(file)
            check_same_shapes(weights, trained)
        except UNREADABLE:
            if not self.is_saved(best):
                raise
            load_adapter_into(model, self.run.adapter)
            if here().first:
                self.write(best.step)  # again, so that the next call finds it
            return
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(weights[name])

    def is_saved(self, best: Point) -> bool:
        """Whether the adapter in the run's folder is whole, and of the best evaluation, as the run's card says."""
        said = read_card(self.run.folder, lambda text: None).get("best", {})
        same = (said.get("step"), said.get("by"), said.get("value")) == (best.step, self.settings.best_by, best.value)
        return same and not adapter_fault(self.run.adapter)

    def set_aside(self) -> None:
        """Keeps the adapter that lies in the run's folder beside the one that will take its place, and says so.

        It may be that of the best evaluation. One that is of the last step, as its card says, is just written again.
        """
        card = read_card(self.run.folder, lambda text: None)
        same = card.get("steps") == self.trainer.state.global_step and "best" not in card
        if same or not here().first or adapter_fault(self.run.adapter):
            return
        places = (self.run.folder / f"adapter-before-{number}" for number in itertools.count(1))
        place = next(path for path in places if not path.exists())
        with writes_to(place):
            self.run.adapter.rename(place)
        self.report(tr("the adapter that was there is kept as {name}", name=place.name))


def check_same_shapes(weights: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError unless these weights have the names and shapes that are wanted."""
    shapes = [{name: tuple(one.shape) for name, one in tensors.items()} for tensors in (weights, wanted)]
    if shapes[0] != shapes[1]:
        raise ValueError(tr("they are of another adapter"))


def load_adapter_into(model: Any, folder: Path) -> None:
    """Gives a model that is trained the weights of an adapter that was saved of it. Raises one of UNREADABLE.

    One that began as a part of the base was saved with its start behind it (models/starts.py), which is left out.
    """
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    kept = load_file(folder / "adapter_model.safetensors")
    if start_of(model) is not None:
        is_a = lambda name: ".lora_A." in name
        kept = {n: t[: len(own[n])] if is_a(n) else t[:, : own[n].shape[1]].contiguous() for n, t in kept.items()}
    check_same_shapes(kept, own)
    set_peft_model_state_dict(model, kept)
