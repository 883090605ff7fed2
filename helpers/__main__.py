"""The command line: `python -m helpers doctor`, `run`, `lab`, `app`, `train` and `bench`."""

import argparse

from helpers import __version__


def main(arguments: list[str] | None = None) -> None:
    """Runs the command that is named; ends with one line that says what to do when it fails."""
    parser = argparse.ArgumentParser(prog="python -m helpers", description="The notebook series on the command line.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="is this machine ready?")
    run = commands.add_parser("run", help="run the notebooks in order, ending in a measured before/after")
    run.add_argument("numbers", nargs="*", help="only these notebooks, such as 00 03")
    run.add_argument("--profile", default="auto", help="auto, smoke, laptop, colab or datacenter")
    lab = commands.add_parser("lab", help="open JupyterLab on the notebooks")
    lab.add_argument("--port", type=int, default=8888, help="on this machine's loopback address (8888)")
    app = commands.add_parser("app", help="notebook 04's panel alone, in the browser, for several visitors")
    app.add_argument("--profile", default="auto", help="auto, smoke, laptop, colab or datacenter")
    app.add_argument("--run", metavar="FOLDER", help="the run whose adapter answers; the newest without it")
    app.add_argument("--port", type=int, default=8866, help="on this machine's loopback address (8866)")
    bench = commands.add_parser("bench", help="training speed on this machine, against TRL alone")
    bench.add_argument("--profile", default="auto", help="auto, smoke, laptop, colab or datacenter")
    bench.add_argument("--rows", type=int, default=160, help="rows of the training set that both sides train on (160)")
    bench.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run of each side for each (0 1 2)")
    bench.add_argument("--json", metavar="FILE", help="write the figures to this file")
    train = commands.add_parser("train", help="notebook 03's training as a script, on your own data if you like")
    train.add_argument("--data", help="a JSONL, JSON, CSV or Parquet file, or a data set of the Hub as name@commit")
    train.add_argument("--format", help="messages, sharegpt, alpaca, prompt_completion, question_answer or guanaco")
    train.add_argument("--profile", default="auto", help="auto, smoke, laptop, colab or datacenter")
    train.add_argument("--model", help="a model id, or a folder with a saved model")
    train.add_argument("--max-steps", type=int, help="stop after so many optimizer steps")
    train.add_argument("--settings", metavar="FILE", help="a run's settings.json: trains in that run's folder")
    train.add_argument(
        "--new", action="store_true", help="start a new run, even if one of these settings is unfinished"
    )
    chosen = parser.parse_args(arguments)
    if chosen.command == "doctor":
        run_doctor()
    elif chosen.command == "lab":
        open_lab(chosen.port)
    elif chosen.command == "app":
        open_app(chosen.profile, chosen.run, chosen.port)
    elif chosen.command == "train":
        run_training(chosen)
    elif chosen.command == "bench":
        run_bench(chosen.profile, chosen.rows, chosen.seeds, chosen.json)
    else:
        run_notebooks(chosen.profile, chosen.numbers)


def run_doctor() -> None:
    """Prints the report; exit status 1 when something has to be fixed."""
    from helpers.doctor import examine, show_report

    findings = examine()
    show_report(findings)
    if any(finding.mark == "fix" for finding in findings):
        raise SystemExit(1)


def run_notebooks(profile: str, numbers: list[str]) -> None:
    """Fetches the embedded model if it is needed, then runs the notebooks."""
    from helpers import embedded, series

    try:
        if profile in ("auto", "laptop"):
            embedded.model_folder()
        series.run_series(profile, numbers)
    except (series.SeriesError, embedded.EmbeddedModelError) as error:
        series.fail(str(error))
    except KeyboardInterrupt:
        series.fail("stopped by you; what was finished lies in runs/")


def run_training(chosen: argparse.Namespace) -> None:
    """Trains as notebook 03 does; ends with one line when the data, the settings or the training are at fault."""
    from pathlib import Path

    from helpers import series
    from helpers.data import DataError
    from helpers.script import read_settings, train_alone
    from helpers.settings import SettingsError, resolve
    from helpers.trainer import TrainingError

    given = {"data": chosen.data, "data_format": chosen.format, "model": chosen.model, "max_steps": chosen.max_steps}
    try:
        if chosen.settings:
            if any(value is not None for value in given.values()):
                raise SettingsError(
                    "--settings already says everything: leave out --data, --format, --model, --max-steps."
                )
            path = Path(chosen.settings).resolve()
            train_alone(read_settings(path), path.parent)
        else:
            train_alone(resolve(chosen.profile, **given), resume=not chosen.new)
    except (DataError, SettingsError, TrainingError) as error:
        series.fail(str(error))


def run_bench(profile: str, rows: int, seeds: list[int], target: str | None) -> None:
    """Prints tokens a second of both sides and their ratio; about five minutes on two cores."""
    from pathlib import Path

    from helpers.bench import compare
    from helpers.paths import write_json
    from helpers.settings import resolve

    result = compare(resolve(profile, num_train_epochs=1.0), rows, seeds)
    print(f"ours {result['ours']:.0f}, TRL alone {result['stock']:.0f} tokens a second: {result['ratio']:.2f} times")
    print(f"loss on held-out rows, once a seed: {result['final_losses']}")
    if target:
        write_json(Path(target), result)


def refuse_taken(port: int, command: str) -> None:
    """Ends with one line when a port of the loopback address is taken."""
    import socket

    from helpers import series

    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            series.fail(f"port {port} is taken; choose another: python -m helpers {command} --port {port + 11}")


def open_app(profile: str, run: str | None, port: int) -> None:
    """Serves the panel of notebook 04 until it is interrupted."""
    import sys
    from pathlib import Path

    from helpers import series
    from helpers.app import serve
    from helpers.settings import SettingsError

    refuse_taken(port, "app")
    if run and not (Path(run) / "adapter").is_dir():
        series.fail(f"{run} has no folder 'adapter'; choose one of runs/, or leave --run out for the newest")
    try:
        sys.exit(serve(profile, Path(run) if run else None, port))
    except SettingsError as error:
        series.fail(str(error))
    except KeyboardInterrupt:
        series.fail("stopped by you")


def open_lab(port: int) -> None:
    """Becomes JupyterLab on the notebooks' folder; ends with one line when the port is taken."""
    import subprocess
    import sys

    from helpers.paths import NOTEBOOKS

    refuse_taken(port, "lab")
    command = [sys.executable, "-m", "jupyter", "lab", f"--port={port}", "--ip=127.0.0.1", str(NOTEBOOKS)]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
