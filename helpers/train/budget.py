"""How long a training takes, said after three timed steps, and how many steps fit into its minutes. Trains nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from transformers import TrainerCallback, get_scheduler

from helpers.machine.language import tr
from helpers.machine.paths import is_kind, json_in
from helpers.run import Run
from helpers.watch.history import read_history

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from helpers.settings import Settings
    from helpers.train.checkpoints import Checkpoint
    from helpers.train.trainer import LoraTrainer

EVALUATIONS = 8  # in a run, at least, beside the one before it: enough for a line
TIMED = 3  # steps; the one before them warms up
SPARE = 0.05  # of the minutes: for checkpoints, and since steps are not all alike
SHARE = 0.25  # of the minutes, at most, for evaluations
PLANNED = "planned"  # what a log, and so a checkpoint, calls the plan that was made


class Plan(NamedTuple):
    """How many optimizer steps a training has, and after how many of them it is evaluated."""

    steps: int
    every: int


def plan_for(seconds: float, done: int, wanted: int, step_seconds: float, evaluation_seconds: float) -> Plan:
    """What fits into so many seconds from here on. done: steps so far; wanted: steps without a budget.

    At least one more step is made; where evaluations would take more than a quarter of the time there are fewer.
    """
    rounds = EVALUATIONS
    if evaluation_seconds * EVALUATIONS > SHARE * seconds:
        rounds = max(1, int(SHARE * seconds / evaluation_seconds))
    steps = done + max(1, int((seconds - rounds * evaluation_seconds) / step_seconds))
    steps = min(steps, wanted)
    return Plan(steps, max(1, -(-steps // rounds)))  # rounded up: the last of the rounds is at the last step


class TimeForecast(TrainerCallback):
    """Says after three timed steps how long the training will take; with minutes, fixes how many steps it has.

    Tokens are counted without padding. earlier: seconds of the run's earlier legs. planned: the number of steps is that
    of the checkpoint. evaluation: seconds of one, where an earlier leg has made one.
    """

    def __init__(
        self,
        trainer: LoraTrainer,
        report: Callable[[str], None] = print,
        earlier: float = 0.0,
        planned: bool = False,
        evaluation: float = 0.0,
    ):
        self.trainer, self.report, self.earlier, self.evaluation = trainer, report, earlier, evaluation
        self.minutes = 0.0 if planned else trainer.settings.minutes
        self.first = 0
        self.seconds: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.first, self.begun, self.steps_begun = state.global_step, time.perf_counter(), False
        self.aside, self.evaluated = 0.0, False
        if self.minutes:  # a plan of an earlier leg is of other minutes
            state.log_history = [entry for entry in state.log_history if PLANNED not in entry]

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self.steps_begun and args.eval_on_start:  # with the answers that are sampled then
            self.evaluation = time.perf_counter() - self.begun
        elif self.evaluated:  # between two of the timed steps, where a training has few
            self.aside += time.perf_counter() - self.ended
        self.steps_begun, self.evaluated = True, False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.evaluated = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now, seen, step = time.perf_counter(), self.trainer._total_train_tokens, state.global_step - self.first
        self.ended = now
        if step == 1:
            self.start, self.before, self.aside = now, seen, 0.0
        if step == 1 + TIMED and seen > self.before:
            rate = (seen - self.before) / (now - self.start - self.aside)
            mean = sum(map(len, self.trainer.train_dataset["input_ids"])) / len(self.trainer.train_dataset)
            tokens = mean * args.train_batch_size * args.gradient_accumulation_steps * args.world_size  # of a step
            if self.minutes:
                self.fit(state, now, tokens / rate)
            tokens *= state.max_steps - self.first
            self.seconds = tokens / rate
            self.report(
                tr(
                    "about {minutes:.1f} minutes: {tokens:,.0f} tokens at {rate:,.0f} a second",
                    minutes=self.seconds / 60,
                    tokens=tokens,
                    rate=rate,
                )
            )

    def fit(self, state: TrainerState, now: float, step_seconds: float) -> None:
        """Fixes the number of steps by the minutes, in all processes alike; says which share of the data that is."""
        wanted, done = state.max_steps, state.global_step
        left = self.minutes * 60 * (1 - SPARE) - self.earlier - (now - self.begun)
        plan = plan_for(left, done, wanted, step_seconds, self.evaluation)
        if self.trainer.args.world_size > 1:
            every_rank = self.trainer.accelerator.gather(torch.tensor([plan], device=self.trainer.args.device))
            plan = Plan(*every_rank[0].tolist())  # the first process decides
        rounds = -(-plan.steps // plan.every)
        late = (plan.steps - done) * step_seconds + rounds * self.evaluation - left - SPARE * self.minutes * 60
        if late > 0:
            self.report(
                tr(
                    "MINUTES = {minutes:g} is too short: one more step and an evaluation end about {late:.0f} s later",
                    minutes=self.minutes,
                    late=late,
                )
            )
        self.tell(plan, wanted, done / (state.epoch or math.inf), step_seconds)
        adopt(self.trainer, plan)
        made: dict[str, Any] = {"step": done, PLANNED: list(plan), "for": asked(self.trainer.settings)}
        state.log_history.append(made)
        state.max_steps, state.eval_steps = plan.steps, plan.every
        reschedule(self.trainer, plan.steps)

    def tell(self, plan: Plan, wanted: int, epoch_steps: float, step_seconds: float) -> None:
        """Says how many of the wanted steps there will be, which share of an epoch that is, and what one would take."""
        minutes = step_seconds * epoch_steps / 60
        needed = tr("{n:.1f} hours", n=minutes / 60) if minutes >= 90 else tr("{n:.1f} minutes", n=minutes)
        share = plan.steps / epoch_steps if epoch_steps else 0.0
        which = {"minutes": self.minutes, "steps": plan.steps, "wanted": wanted, "share": share, "needed": needed}
        fits = tr(
            "all {wanted:,} steps fit into MINUTES = {minutes:g}; they are {share:.1%} of an epoch, and a whole one "
            "takes {needed} of training",
            **which,
        )
        part = tr(
            "MINUTES = {minutes:g}: {steps:,} of {wanted:,} steps, which is {share:.1%} of an epoch; a whole one would "
            "take {needed} of training",
            **which,
        )
        self.report(fits if plan.steps == wanted else part)


def adopt(trainer: LoraTrainer, plan: Plan) -> None:
    """Makes a plan that of the trainer's arguments, so that whoever asks them how many steps there are knows it."""
    trainer.args.max_steps, trainer.args.eval_steps = plan


def asked(settings: Settings) -> list[float]:
    """What a plan is made for: where one of these is another, it does not hold."""
    return [settings.minutes, settings.max_steps, settings.num_train_epochs]


def plan_of(checkpoint: Checkpoint, settings: Settings) -> Plan | None:
    """The plan of a checkpoint's run, where one was made by then, for what these settings ask; else None."""
    log = json_in(checkpoint.folder / "trainer_state.json")["log_history"]
    plans = [entry for entry in log if PLANNED in entry]
    return Plan(*plans[-1][PLANNED]) if plans and plans[-1]["for"] == asked(settings) else None


def reschedule(trainer: LoraTrainer, steps: int) -> None:
    """Gives the running training the learning rates of one with so many steps, from its next step on.

    All of limits.SCHEDULES are a LambdaLR (transformers/optimization.py): a factor by the number of the step.

    Upstream: the rate that is logged is LambdaLR's private _last_lr. Breaks: the log has one step's rate as it was.
    Drift: test_budget.py::test_the_steps_that_fit_are_a_training_of_their_own
    """
    args, running = trainer.args, cast(Any, trainer.lr_scheduler)
    aside = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    scheduler = get_scheduler(args.lr_scheduler_type, aside, args.get_warmup_steps(steps), steps)
    running.lr_lambdas = scheduler.lr_lambdas * len(running.base_lrs)
    for group, rate, factor in zip(running.optimizer.param_groups, running.base_lrs, running.lr_lambdas, strict=True):
        group["lr"] = rate * factor(running.last_epoch)
    running._last_lr = [group["lr"] for group in running.optimizer.param_groups]


def evaluation_seconds(run: Run) -> float:
    """What an evaluation of the run's earlier legs took; 0 without one."""
    rows = read_history(run.history.path) if run.history.path.exists() else []
    return max((float(row["eval_runtime"]) for row in rows if is_kind(row.get("eval_runtime"), float)), default=0.0)
