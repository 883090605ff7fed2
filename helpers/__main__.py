"""The command line: `python -m helpers doctor`, `run`, `lab`, `app`, `train`, `runs`, `export`, `plan`, `bench`, ..."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers import __version__
from helpers.machine.language import listed, tr
from helpers.machine.paths import NOTEBOOKS
from helpers.machine.values import argument, odd_text
from helpers.project import options
from helpers.project.ending import one_net, show_everything
from helpers.runs import SORTS, show_runs

PORT, COUNT = argument(int, 1, 65535), argument(int, 1, 100_000)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command that is named; ends with a sentence that says what to do when it fails, and status 1."""
    show_everything()
    parser = options.Parser(prog="python -m helpers", description="The notebook series on the command line.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (add_series, add_training, add_after):
        add(commands)
    if wrong := options.no_value(sys.argv[1:] if arguments is None else arguments):
        parser.error(wrong)
    chosen = parser.parse_args(arguments)
    if wrong := odd_text(vars(chosen)) or options.together(chosen):
        parser.error(wrong)
    with one_net(chosen.debug):
        chosen.run_command(chosen)


def command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
    profile: bool = False,
) -> argparse.ArgumentParser:
    """A new command. run: takes the parsed arguments. profile: whether it has --profile."""
    parser = commands.add_parser(name, help=text)
    parser.set_defaults(run_command=run)
    parser.add_argument("--debug", action="store_true", help="when it fails, where: the traceback, and its log")
    if profile:
        text = "auto, smoke, laptop, colab or datacenter"
        parser.add_argument("--profile", type=options.choice(options.PROFILE_NAMES), default="auto", help=text)
    return parser


def add_series(commands: Any) -> None:
    """The commands that a reader meets first: doctor, run, lab, app."""
    write = command(commands, "write", run_write, "the files that are made from others")
    text = "of the Chinese edition, NN.json: taken in first"
    write.add_argument("drafts", nargs="*", type=options.file_there, metavar="DRAFT", help=text)
    write.add_argument("--check", action="store_true", help="only name those that differ")
    kit = command(commands, "kit", run_kit, "a folder with all that a class installs, for rooms without a network")
    kit.add_argument("folder", type=options.folder_of_kit, help="where it is made, or lies")
    kit.add_argument("--everything", action="store_true", help="fetch the wheels of all platforms and Pythons")
    kit.add_argument("--serve", action="store_true", help="lend a kit that is there to this network, until Ctrl+C")
    kit.add_argument("--port", type=PORT, default=8000, help="where it is lent (8000)")
    text = "pass codes of a class as a table: who did which exercises"
    verify = command(commands, "verify", lambda chosen: run_verify(chosen.codes), text)
    verify.add_argument("codes", nargs="+", metavar="CODE", help="as notebooks show it; several with spaces between")
    text = "the tests with the newest libraries, and which one broke what (`make canary` makes their environment)"
    command(commands, "canary", lambda chosen: run_canary(), text)
    site = command(commands, "site", run_site, "notebooks, documents and report as a static site (`make site`)")
    text = "of runs/; without it, the newest that has executed notebooks"
    executed = options.folder_of_run("executed")
    site.add_argument("--run", metavar="FOLDER", type=executed, help=text)
    site.add_argument("--target", metavar="FOLDER", type=options.place, default="build/site", help="made anew")
    text = "pictures of a run's key moments, to be looked at: wide, on a phone, in the dark"
    shots = command(commands, "shots", run_shots, text)
    shots.add_argument("run", type=executed, help="a folder of runs/")
    text = "where they go (build/shots)"
    shots.add_argument("--target", metavar="FOLDER", type=options.place, default="build/shots", help=text)
    shots.add_argument("--readme", action="store_true", help="README's two pictures in docs/ instead: chart and panel")
    doctor = command(commands, "doctor", lambda chosen: run_doctor(chosen.deep), "is this machine ready?")
    doctor.add_argument("--deep", action="store_true", help="read the model's files whole, and compare their hashes")
    text = "run notebooks 00 to 04, ending in a measured before/after"
    run = command(commands, "run", lambda c: run_notebooks(c.profile, c.numbers, c.all), text, profile=True)
    numbers = options.choice(sorted(path.name[:2] for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")))
    run.add_argument("numbers", nargs="*", type=numbers, help="only these notebooks, such as 00 03")
    run.add_argument("--all", action="store_true", help="the whole series, 05 and those after it too")
    lab = command(commands, "lab", lambda chosen: open_lab(chosen.port), "open JupyterLab on the notebooks")
    lab.add_argument("--port", type=PORT, default=8888, help="on this machine's loopback address (8888)")
    text = "notebook 04's panel alone, in the browser, for several visitors"
    app = command(commands, "app", open_app, text, profile=True)
    text = "the run whose adapter answers; the newest without it"
    app.add_argument("--run", metavar="FOLDER", type=options.folder_of_run("adapter"), help=text)
    app.add_argument("--port", type=PORT, default=8866, help="where it listens (8866)")
    app.add_argument("--visitors", type=COUNT, default=30, help="at a time; who comes later waits for a place (30)")
    text = "for everybody in this network who is given the address; NAME: a further name of this machine"
    app.add_argument("--share", metavar="NAME", nargs="?", const="", help=text)
    text = "a file or folder of Markdown or text, searched for each question; what is found stands beside the answer"
    app.add_argument("--sheet", metavar="PATH", type=options.there, help=text)


def add_training(commands: Any) -> None:
    """The commands that train: train, bench."""
    text = "training speed on this machine, against TRL alone"
    bench = command(commands, "bench", lambda c: run_bench(c.profile, c.rows, c.seeds, c.json), text, profile=True)
    bench.add_argument("--rows", type=COUNT, default=160, help="of the training set, for both sides (160)")
    seed, text = argument(int, 0, 2**32 - 1), "one run of each side for each (0 1 2)"
    bench.add_argument("--seeds", type=seed, nargs="+", default=[0, 1, 2], help=text)
    bench.add_argument("--json", metavar="FILE", type=options.output_file, help="write the figures to this file")
    text = "notebook 03's training as a script, on your own data if you like"
    train = command(commands, "train", run_training, text, profile=True)
    data, model = (options.as_argument(check) for check in (options.data_there, options.model_there))
    text = "a JSONL, JSON, CSV or Parquet file, or a data set of the Hub as name@commit"
    train.add_argument("--data", type=data, help=text)
    text = "a name of docs/data.md's table; without it, what the columns say"
    train.add_argument("--format", type=options.format_there, help=text)
    train.add_argument("--model", type=model, help="a model id, or a folder with a saved model")
    for name, kind, text in options.TRAINING:
        train.add_argument(f"--{name.replace('_', '-')}", type=options.setting(name, kind), help=text)
    text = "a run's settings.json: trains in that run's folder"
    train.add_argument("--settings", metavar="FILE", type=options.file_there, help=text)
    train.add_argument("--new", action="store_true", help="start a new run, whatever there is already")
    train.add_argument(
        "--allow", default="", type=options.names_of_proofs, help="names of preflight rows that may fail, with commas"
    )


def add_after(commands: Any) -> None:
    """The commands for what comes after a training, or before a larger one: export, plan."""
    runs = command(commands, "runs", run_runs, "all runs side by side: settings that differ, and what came of them")
    runs.add_argument("--sort", default="newest", choices=SORTS, help="by which figure, the best first (newest)")
    text = "what changed from one to the other"
    runs.add_argument("--compare", nargs=2, default=(), metavar="RUN", type=options.named_run, help=text)
    text = "a run's adapter with its model card, or merged into its base"
    export = command(commands, "export", run_export, text)
    export.add_argument("run", type=options.folder_of_run("settings.json"), help="a folder of runs/")
    export.add_argument("target", type=options.place, help="a new folder")
    kinds = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
    export.add_argument("--gguf", choices=kinds, help="merged, as one file for llama.cpp and Ollama")
    text = "llama.cpp's repository: its own converter is used"
    export.add_argument("--llama-cpp", metavar="FOLDER", type=options.folder_of_llama_cpp, help=text)
    text = "ask base + adapter and the exports the same: a text file, a question a line, or a data file"
    export.add_argument("--check", metavar="QUESTIONS", type=options.file_there, help=text)
    export.add_argument("--data-licence", default="", help="of your own data, for the model card")
    base, text = options.folder_of_base, "merge it into the base's 16-bit weights"
    export.add_argument("--merged", metavar="BASE", nargs="?", const="", type=base, help=text)
    plan = command(commands, "plan", run_plan, "memory, time and cost on GPUs that are not here")
    model, text = options.as_argument(options.model_there), "a known model, a folder or a model id"
    plan.add_argument("--model", default="tiiuae/falcon-7b", type=model, help=text)
    plan.add_argument("--gpus", type=COUNT, default=1)
    plan.add_argument("--gpu-memory", type=argument(float, 0, 1e5, above=True), default=80, help="GiB of each (80)")
    text = "to train on, all epochs together (10 million)"
    plan.add_argument("--tokens", type=argument(float, 0, 1e18, above=True), default=1e7, help=text)
    plan.add_argument("--rows", type=COUNT, default=8, help="rows of a forward pass on each card (8)")
    plan.add_argument("--max-length", type=argument(int, 1, 2**20), default=512, help="tokens of a row (512)")
    plan.add_argument("--price", type=argument(float, 0, 1e9), help="of one card for an hour, in your currency")


def run_doctor(deep: bool) -> None:
    """Prints the report; exit status 1 when something has to be fixed."""
    from helpers.project.doctor import examine, show_report

    findings = examine(deep=deep)
    show_report(findings)
    if any(finding.mark == "fix" for finding in findings):
        raise SystemExit(1)


def run_write(chosen: argparse.Namespace) -> None:
    """Writes what project.written makes; with --check, only ends with status 1 if something differs."""
    from helpers.project.edition import take_drafts
    from helpers.project.written import write

    take_drafts(chosen.drafts)
    changed = write(chosen.check)
    print("\n".join(changed) or tr("nothing to write"))
    if chosen.check and changed:
        raise SystemExit(1)


def run_kit(chosen: argparse.Namespace) -> None:
    """Makes a kit, or lends one."""
    from helpers.project.kit import KitError, make_kit, serve_kit
    from helpers.project.series import fail

    folder = Path(chosen.folder)
    try:
        if chosen.serve:
            serve_kit(folder, chosen.port)
        else:
            print(tr("{path}: README.md says how it is used", path=make_kit(folder, chosen.everything)))
    except KitError as error:
        fail(str(error))


def run_verify(codes: list[str]) -> None:
    """Prints a row for each pass code."""
    from helpers.lessons.pass_code import codes_table

    print(codes_table(codes))


def run_site(chosen: argparse.Namespace) -> None:
    """Builds the static site, with the Python of .venv-site."""
    from helpers.project.pages import make_site

    make_site(chosen.target, chosen.run)


def run_shots(chosen: argparse.Namespace) -> None:
    """Takes the pictures and says how many there are, and where."""
    from helpers.project.shots import readme_pictures, take_shots

    run, target = Path(chosen.run).resolve(), Path(chosen.target)
    pictures = readme_pictures(run) if chosen.readme else take_shots(run, target)
    print(tr("{n} pictures in {path}", n=len(pictures), path=pictures[0].parent))


def run_canary() -> None:
    """Exit status 1 when a newer library broke something."""
    from helpers.project.canary import sing

    if not sing():
        raise SystemExit(1)


def run_notebooks(profile: str, numbers: list[str], whole: bool = False) -> None:
    """Runs the notebooks: those named, the main job, or all."""
    from helpers.project import series

    series.run_series(profile, numbers or ([] if whole else list(series.MAIN)))


def run_training(chosen: argparse.Namespace) -> None:
    """Trains as notebook 03 does; ends with one line when the data, the settings or the training are at fault."""
    from helpers.machine.hardware import this_machine
    from helpers.project.script import at_a_commit, check_layers_asked, train_alone
    from helpers.run import read_settings
    from helpers.settings import SettingsError, check_settings, resolve

    given = {"data": chosen.data, "data_format": chosen.format, "model": chosen.model}
    given |= {name: getattr(chosen, name) for name, *_ in options.TRAINING}
    allow = tuple(filter(None, map(str.strip, chosen.allow.split(","))))
    if not chosen.settings:
        with options.as_asked(SettingsError):  # what only this machine, or two options together, make wrong
            settings = resolve(chosen.profile, **given)
            check_layers_asked(settings)
        train_alone(settings, resume=not chosen.new, allow=allow)
        return
    path = Path(chosen.settings).resolve()
    settings = at_a_commit(read_settings(path))
    check_settings(settings, this_machine())
    train_alone(settings, path.parent, allow=allow)


def run_runs(chosen: argparse.Namespace) -> None:
    """Prints the runs side by side, or what changed between two."""
    show_runs(chosen.sort, chosen.compare)


def run_export(chosen: argparse.Namespace) -> None:
    """Exports a run's adapter; with --merged adds it into a base: a folder, or "" for the run's own."""
    from helpers.export.adapter import export_adapter, vllm_faults
    from helpers.export.whole import export_whole
    from helpers.models.source import base_folder
    from helpers.run import read_settings

    run, target, merged = Path(chosen.run), Path(chosen.target), chosen.merged
    settings = read_settings(run / "settings.json")
    if merged is None and not chosen.gguf and not chosen.check:
        faults = vllm_faults(export_adapter(run, target, data_licence=chosen.data_licence))
        said = {"target": target, "said": listed(faults, "; ") or tr("nothing against it")}
        print(tr("{target}: the adapter with its model card. vLLM: {said}", **said))
        return
    base = Path(merged) if merged else base_folder(settings)
    more = {"gguf": chosen.gguf, "llama_cpp": chosen.llama_cpp, "questions": chosen.check}
    export_whole(run, base, target, data_licence=chosen.data_licence, **more)


def run_plan(chosen: argparse.Namespace) -> None:
    """Prints what a training would take on other cards."""
    from helpers.export.plan import options_table, plan, shape_for
    from helpers.settings import Settings

    settings = Settings(per_device_train_batch_size=chosen.rows, max_length=chosen.max_length, packing=True)
    shape, memory = shape_for(chosen.model), chosen.gpu_memory
    found = plan(shape, settings, gpus=chosen.gpus, gpu_gib=memory, tokens=chosen.tokens, price=chosen.price)
    asked = {"model": chosen.model, "gpus": chosen.gpus, "gib": memory, "tokens": chosen.tokens}
    print(tr("{model}, {gpus} x {gib:.0f} GiB, {tokens:,.0f} tokens", **asked))
    print(options_table(found, memory, shape))


def run_bench(profile: str, rows: int, seeds: list[int], target: str | None) -> None:
    """Prints tokens a second of both sides and their ratio; about five minutes on two cores."""
    from helpers.machine.paths import write_json
    from helpers.project.bench import compare_with_stock
    from helpers.settings import resolve

    result = compare_with_stock(resolve(profile, num_train_epochs=1.0), rows, seeds)
    rates = {name: result[name] for name in ("ours", "stock", "ratio")}
    print(tr("ours {ours:.0f}, TRL alone {stock:.0f} tokens a second: {ratio:.2f} times", **rates))
    print(tr("loss on held-out rows, once a seed: {losses}", losses=result["final_losses"]))
    if target:
        write_json(Path(target), result)


def refuse_taken(port: int, command: str) -> None:
    """Ends with one line when a port of the loopback address is taken."""
    import socket

    from helpers.project import series

    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            facts = {"port": port, "command": command, "other": port + 11}
            series.fail(tr("port {port} is taken; choose another: python -m helpers {command} --port {other}", **facts))


def open_app(chosen: argparse.Namespace) -> None:
    """Serves the panel of notebook 04 until it is interrupted."""
    from helpers.evaluate.sheets import SheetError
    from helpers.panels.app import serve
    from helpers.project import series
    from helpers.settings import SettingsError

    run, sheet = Path(chosen.run) if chosen.run else None, Path(chosen.sheet) if chosen.sheet else None
    refuse_taken(chosen.port, "app")
    try:
        sys.exit(serve(chosen.profile, run, chosen.port, chosen.visitors, chosen.share, sheet))
    except (SettingsError, SheetError) as error:
        series.fail(str(error))
    except KeyboardInterrupt:
        series.fail(tr("stopped by you"))


# JupyterLab's page asks the package index for newer versions, and offers news from its makers' address.
QUIET = ("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None")


def open_lab(port: int) -> None:
    """Becomes JupyterLab on the notebooks in the reader's language; ends with one line when the port is taken."""
    import subprocess

    from helpers.project.series import notebooks_folder

    refuse_taken(port, "lab")
    command = [sys.executable, "-m", "jupyter", "lab", f"--port={port}", "--ip=127.0.0.1", *QUIET, str(NOTEBOOKS)]
    if (edition := notebooks_folder()) != NOTEBOOKS:  # the others lie one folder higher
        command.append(f"--LabApp.default_url=/lab/tree/{edition.name}")
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
