"""Is this machine ready? A report, each line with its remedy. Changes nothing."""

import os
import sys
from typing import NamedTuple

from helpers.machine.hardware import Choice, Machine, choose_device, hub_reachable, this_machine
from helpers.machine.language import tr
from helpers.machine.paths import PROJECT, cache_folder
from helpers.machine.places import Place, free_disk_gib, places, write_fault
from helpers.machine.tables import Table, show
from helpers.machine.versions import STACK, installed_version, lower_bounds
from helpers.models import manifest
from helpers.models.embedded import GGUF_SHA256, folder_of_model
from helpers.settings import choose_profile, named_profile

RAM_GIB = 6


class Finding(NamedTuple):
    """One line of the report. mark: "ok", "note" (works, but know it) or "fix" (will not work)."""

    mark: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"[{self.mark}]".ljust(7) + self.what + (f"  ->  {self.remedy}" if self.remedy else "")


def examine(machine: Machine | None = None, deep: bool = False) -> list[Finding]:
    """Every finding about this machine (or about the one given, as far as it tells). deep: reads the model whole."""
    machine = machine or this_machine()
    hub, needed = hub_reachable(), lower_bounds()
    wrong = manifest.folder_fault(folder_of_model(), deep, gguf=GGUF_SHA256)
    return [
        python_finding(sys.version_info[:3]),
        *[library_finding(name, needed[name], installed_version(name)) for name in (*STACK, "ipywidgets")],
        Finding(
            "ok",
            tr(
                "device: {device} ({reason})", device=choose_device(machine).value, reason=choose_device(machine).reason
            ),
        ),
        memory_finding(machine.ram_gib),
        *[place_finding(place, serves=place.setting == "FT_CACHE" and not wrong) for place in places()],
        model_finding(wrong, deep),
        Finding("ok", tr("front end: {front_end}", front_end=front_end())),
        hub_finding(hub.value, hub.reason),
        profile_finding(machine, hub),
    ]


def show_report(findings: list[Finding]) -> None:
    """Shows the findings, then one line that says whether the series can run."""
    broken = sum(finding.mark == "fix" for finding in findings)
    ending = (
        tr("ready") if not broken else tr("{broken} thing(s) to fix first, see the lines marked [fix]", broken=broken)
    )
    rows = [(f"[{finding.mark}]", finding.what, finding.remedy) for finding in findings]
    lines = "\n".join(map(str, findings))
    show(Table(("", tr("what was found"), tr("what to do")), rows, notes=[ending], text=f"{lines}\n"))


def python_finding(version: tuple[int, ...]) -> Finding:
    """Whether this Python is one that the series is tested with."""
    shown = "Python " + ".".join(map(str, version))
    if version < (3, 11):
        return Finding("fix", shown, tr("install Python 3.11, 3.12 or 3.13"))
    if version >= (3, 14):
        return Finding("note", shown, tr("tested with 3.11 to 3.13; if an installation fails, use one of these"))
    return Finding("ok", shown)


def library_finding(name: str, needed: str, installed: str | None) -> Finding:
    """Whether a library is there, and new enough."""
    from packaging.version import Version

    if installed is None:
        return Finding(
            "fix",
            tr("{name} is not installed", name=name),
            tr("run `make run`, or `pip install -c constraints.txt -e .`"),
        )
    if Version(installed) < Version(needed):
        return Finding(
            "fix",
            tr("{name} {installed}, needed {needed} or newer", name=name, installed=installed, needed=needed),
            "pip install -c constraints.txt -e .",
        )
    return Finding("ok", f"{name} {installed}")


def memory_finding(gib: float) -> Finding:
    """Whether the memory suffices for the laptop profile."""
    if gib < RAM_GIB:
        return Finding(
            "note",
            tr("memory: {gib:.0f} GiB", gib=gib),
            tr("close other programs: the laptop profile wants about 4 GiB free"),
        )
    return Finding("ok", tr("memory: {gib:.0f} GiB", gib=gib))


def place_finding(place: Place, serves: bool = False) -> Finding:
    """Whether a place can be written, which is tried, and has room for what will be written there.

    serves: it has what is needed, as a cache that a teacher lends to a class, which none of them can write.
    """
    if wrong := write_fault(place.folder):
        if serves:
            return Finding("ok", tr("{name} is read only ({wrong}), and has the model", name=place.name, wrong=wrong))
        return Finding(
            "fix",
            tr("{name} cannot be written: {wrong}", name=place.name, wrong=wrong),
            tr("set {setting} to a folder that can be", setting=place.setting),
        )
    free = free_disk_gib(place.folder)
    shown = f"{free:.0f} GiB" if free >= 10 else f"{free * 1024:,.0f} MiB"
    if free < place.gib:
        remedy = tr(
            "free {gib:g} GiB, or set {setting} to a folder on another disk", gib=place.gib, setting=place.setting
        )
        return Finding(
            "fix", tr("{name}: {shown} free in {folder}", name=place.name, shown=shown, folder=place.folder), remedy
        )
    return Finding(
        "ok", tr("{name}: {folder} can be written, {shown} free", name=place.name, folder=place.folder, shown=shown)
    )


def model_finding(wrong: str, deep: bool) -> Finding:
    """Whether the converted embedded model in the cache is what was made, looked up in its files."""
    if not wrong:
        looked = tr("every byte was read") if deep else tr("sizes and times; --deep reads every byte")
        return Finding("ok", tr("embedded model: whole ({looked})", looked=looked))
    if not folder_of_model().exists():
        return Finding("ok", tr("embedded model: not here yet; fetched and converted when it is first needed (93 MB)"))
    if write_fault(cache_folder()):
        return Finding(
            "fix",
            tr("embedded model: {wrong}", wrong=wrong),
            tr("the cache folder cannot be written: set FT_CACHE to one that can"),
        )
    return Finding(
        "note", tr("embedded model: {wrong}", wrong=wrong), tr("it is made anew, by itself, when it is next loaded")
    )


def hub_finding(reachable: bool, reason: str) -> Finding:
    """Whether the Hub answers; the laptop profile does without."""
    if reachable:
        return Finding("ok", tr("Hugging Face Hub: it answers"))
    return Finding(
        "note",
        tr("Hugging Face Hub: {reason}", reason=reason),
        tr("the laptop profile does not need it; Falcon-7B does"),
    )


def profile_finding(machine: Machine, hub: Choice) -> Finding:
    """Which profile the notebooks will take, and why."""
    choice = named_profile("auto") or choose_profile(machine, hub)
    return Finding("ok", tr("profile: {name} ({reason})", name=choice.value, reason=choice.reason))


def front_end() -> str:
    """What shows this notebook, as far as the environment tells."""
    if "google.colab" in sys.modules:
        return "Colab"
    if "VSCODE_PID" in os.environ:
        return "VS Code"
    if "ipykernel" in sys.modules:
        return tr("a Jupyter kernel")
    return tr("a terminal, in {folder}", folder=PROJECT.name)
