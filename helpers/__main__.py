"""The command line: `python -m helpers doctor`, `python -m helpers run`."""

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
    chosen = parser.parse_args(arguments)
    if chosen.command == "doctor":
        run_doctor()
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


if __name__ == "__main__":
    main()
