"""Every command ends with a sentence and a status, whatever it is given."""

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from helpers.__main__ import main
from helpers.limits import CHOICES, LIMITS
from helpers.machine.paths import PROJECT
from helpers.project import ending, explain
from helpers.project.options import TRAINING
from helpers.settings import Settings, SettingsError, check_values

ODD = ("", "-1", "0", "nan", "1e400", "9" * 400, "a\0b", "../..", "数据", "--", "[]", "true")
NUMBERS = ("", "-1", "nan", "9" * 30)
GIVEN = {  # (command, option): odd values for it
    **{("plan", name): ODD for name in ("gpus", "gpu-memory", "tokens", "rows", "max-length")},
    ("plan", "price"): ("-1", "x", "nan"),
    **{(command, "port"): ("0", "-1", "65536", "x", "1.5") for command in ("lab", "app")},
    **{("bench", name): ("0.5", "-1", "x") for name in ("rows", "seeds")},
    **{("train", name): NUMBERS for name in ("r", "learning-rate", "max-length", "lora-dropout", "seed")},
    **{("train", name): ("sideways",) for name in ("quantization", "attention", "thinking", "tracking", "template")},
    **{("train", name): ("sideways",) for name in ("data", "format", "layers-to-transform")},
    ("train", "model"): ("", "a\0b", "./nowhere", __file__),
}
COMMANDS = [[command, f"--{name}={value}"] for (command, name), values in GIVEN.items() for value in values]
COMMANDS += [["train", "--settings", value] for value in ("", ".", __file__, "nowhere.json", "a\0b")]
COMMANDS += [["export", value, "target"] for value in ("", "nowhere", __file__, "a\0b")]
COMMANDS += [["run", "99"], ["run", "--profile", "mainframe"], ["nothing"], []]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda given: ascii(" ".join(given))[:60])
def test_an_odd_value_ends_with_a_sentence(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FT_PROFILE", "smoke")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("papermill.execute_notebook", lambda *a, **k: pytest.fail("it was run"))
    try:
        main(arguments)
    except SystemExit as ended:
        said = str(ended.code) if isinstance(ended.code, str) else capsys.readouterr().err
        assert ended.code and said.strip() and "Traceback" not in said and len(said) < 3000


def named_options():
    """(command, its words with {} for the value, name) of every option and argument with a value, of every command."""
    found: list[tuple[str, tuple[str, ...], str]] = []

    def collect(parser, *rest):
        (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
        for command, its in commands.choices.items():
            texts = [one for one in its._actions if one.nargs != 0]
            needed = [one for one in texts if not one.option_strings and one.nargs != "*"]
            for one in texts:
                words = ["{}" if other is one else "x" for other in needed]
                if one.option_strings:
                    flag = one.option_strings[0]
                    words += [flag, "{}", "x"] if one.nargs == 2 else [f"{flag}={{}}"]
                elif one not in needed:
                    words += ["{}"]
                found.append((command, tuple(words), one.option_strings[0] if one.option_strings else one.dest))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(argparse.ArgumentParser, "parse_args", collect)
        main([])
    return found


def options():
    """Those with a text; what a fixed list of names does not hold is refused by argparse."""
    return [one for one in named_options() if one[2] not in ("--sort", "--gguf")]


SHOWN = {"drafts": "(DRAFT|drafts)", "codes": "(CODE|codes)"}  # as the usage names them
NO_TEXT = {  # what no text of any option can be; some say something by being empty, and a code is a row of a table
    "zero byte": "a\0b",
    "long": "x" * 5000,
    "empty": "",
    "blank": "  ",
    "a pipe": "-",
    "the end of options": "--",
    "line break": "a\nb",
    "an order to the terminal": "\x1b[2J",
    "address": "https://example.org/x/y",
}
ALLOWED = {(name, kind) for name in ("--share", "--merged", "--allow", "--data-licence") for kind in ("empty", "blank")}
ALLOWED |= {("--data-licence", kind) for kind in ("a pipe", "line break", "an order to the terminal", "address")}


@pytest.fixture
def whole_run(tmp_path, monkeypatch):
    """A folder x that is a run with all that a command may want of it, so that only what is tried can be wrong."""
    for name in ("executed", "adapter"):
        (tmp_path / "x" / name).mkdir(parents=True)
    (tmp_path / "x" / "settings.json").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("helpers.__main__.one_net", lambda debug: pytest.fail("the command began"))


@pytest.mark.parametrize("kind", NO_TEXT)
@pytest.mark.parametrize(("command", "words", "name"), options(), ids=lambda given: ascii(given)[:50])
def test_what_no_text_can_be_is_refused_for_every_option_of_every_command(
    command, words, name, kind, capsys, whole_run
):
    value, alone = NO_TEXT[kind], "{}" in words  # no option's with =
    if (name, kind) in ALLOWED or command == "verify" or (alone and kind == "the end of options"):
        value = "a\0b"
    with pytest.raises(SystemExit) as ended:
        main([command, *(word.replace("{}", value) for word in words)])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and len(said) < 3000
    assert re.search(rf"error: argument (--\S+/|--)?{SHOWN.get(name, name.strip('-'))}: ", said), said


WRONG = {  # arguments, what is said of them: the option, and the near miss
    "a profile": (["run", "--profile=lapptop"], "argument --profile: 'lapptop': .*did you mean 'laptop'"),
    "a notebook": (["run", "3"], "argument numbers: '3': it is one of 00, 01.*did you mean '0?3'"),
    "a run": (["shots", "20260101-000000-smok"], "argument run: .*did you mean '.*20260101-000000-smoke'"),
    "the app's run": (
        ["app", "--run=20260101-000000-smoke"],
        "argument --run: .*did you mean '.*/20260101-000000-smoke'",
    ),
    "a run that is a file": (["site", "--run", __file__], "argument --run: .* is no folder"),
    "settings": (
        ["train", "--settings=runs/20260101-000000-smoke"],
        "argument --settings: .*did you mean '.*settings.json'",
    ),
    "a setting": (["train", "--quantization=nf5"], "argument --quantization: .*did you mean 'nf4'"),
    "a number": (["train", "--learning-rate=nan"], "argument --learning-rate: "),
    "a target that is a file": (["site", "--target", __file__], "argument --target: .* is no folder"),
    "a target below a device": (
        ["shots", "runs/20260101-000000-smoke", "--target=/dev/null/x"],
        "argument --target: .*no folder",
    ),
    "a target that cannot be": (["export", "runs/20260101-000000-smoke", "/proc/x"], "argument target: /proc: "),
    "a name too long": (["kit", "y" * 300], "argument folder: a name in it has 300 bytes"),
    "a sheet": (["app", "--sheet=nowhere.md"], "argument --sheet: there is no nowhere.md"),
    "questions": (["export", "runs/20260101-000000-smoke", "new", "--check=."], "argument --check: . is no file"),
    "a base": (
        ["export", "runs/20260101-000000-smoke", "new", "--merged=nowhere"],
        "argument --merged: nowhere is no ",
    ),
    "data": (["train", "--data=nowhere.jsonl"], "argument --data: there is no file nowhere.jsonl"),
    "data without a commit": (["train", "--data=a/b"], "argument --data: a/b looks like .* pin its revision"),
    "a folder for data": (["train", "--data=."], "argument --data: . is not a file of data"),
    "a format": (["train", "--format=alpcaa"], "argument --format: .*did you mean 'alpaca'"),
    "a model's folder": (["train", "--model=./nowhere"], "argument --model: ./nowhere: no config.json there"),
    "a model's name": (["plan", "--model=falcon 7b"], "argument --model: .*no name of the Hub"),
    "columns": (["train", "--columns=question"], "argument --columns: "),
    "columns of no meaning": (["train", "--columns=quest=ask"], "argument --columns: .*'quest' is no part of a row"),
    "settings twice": (["train", f"--settings={__file__}", "--r=8"], "argument --settings: it already says everything"),
    "a model's address": (["plan", "--model=https://huggingface.co/a/b"], "argument model: .* Write a/b"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_an_odd_value_is_refused_with_its_option_and_the_near_miss(arguments, said, capsys, monkeypatch, tmp_path):
    (tmp_path / "runs" / "20260101-000000-smoke").mkdir(parents=True)
    (tmp_path / "runs" / "20260101-000000-smoke" / "settings.json").touch()
    (tmp_path / "runs" / "20260101-000000-smoke" / "executed").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("helpers.__main__.one_net", lambda debug: pytest.fail("the command began"))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and re.search(said, capsys.readouterr().err)


# What each option and argument of each command cannot be: a text, or words with others that make it wrong. Whole
# numbers and shares are tried at both sides of their limits. None: any text has a meaning, for the reason beside it.
RUN = "runs/20260101-000000-smoke"
NONSENSE = {
    ("write", "drafts"): "nowhere.json",
    ("kit", "folder"): __file__,
    ("verify", "codes"): None,  # a code that is none is a row of the table
    ("site", "--run"): RUN,  # nothing was executed in it
    ("site", "--target"): __file__,
    ("shots", "run"): RUN,
    ("shots", "--target"): __file__,
    ("run", "--profile"): "mainframe",
    ("run", "numbers"): "99",
    ("app", "--profile"): "mainframe",
    ("app", "--run"): RUN,  # it has no adapter
    ("app", "--share"): None,  # a further name of this machine, which only its network knows
    ("app", "--sheet"): "nowhere.md",
    ("bench", "--profile"): "mainframe",
    ("bench", "--json"): ".",
    ("train", "--profile"): "mainframe",
    ("train", "--data"): "nowhere.jsonl",
    ("train", "--format"): "sideways",
    ("train", "--model"): "./nowhere",
    ("train", "--columns"): "quest=ask",
    ("train", "--target-modules"): "q proj",
    ("train", "--settings"): "nowhere.json",
    ("train", "--allow"): "speed",
    ("runs", "--sort"): "beauty",
    ("runs", "--compare"): ["20260101-000000-smoke", "nowhere"],
    ("export", "run"): "runs",  # it holds runs, and is none
    ("export", "target"): __file__,
    ("export", "--gguf"): "Q3",
    ("export", "--llama-cpp"): ".",
    ("export", "--check"): ".",
    ("export", "--data-licence"): None,  # a licence is any text
    ("export", "--merged"): ".",
    ("plan", "--model"): "./nowhere",
    **{("train", f"--{name.replace('_', '-')}"): "sideways" for name, *_ in TRAINING if name in CHOICES},
    **{("train", f"--{name}"): "perhaps" for name in ("gradient-checkpointing", "keep-best", "use-rslora", "use-dora")},
    **{(name, "--port"): ["0", "65536", "x", "1.5"] for name in ("kit", "lab", "app")},
    **{("plan", f"--{name}"): ["0", "nan", "x", "1e400"] for name in ("gpu-memory", "tokens")},
    **{("plan", f"--{name}"): ["0", "0.5", "9" * 30] for name in ("gpus", "rows", "max-length")},
    ("plan", "--price"): ["-1", "x", "1e10"],
    ("app", "--visitors"): ["0", "x"],
    ("bench", "--rows"): ["0", "x"],
    ("bench", "--seeds"): ["-1", "x"],
}
NONSENSE |= {
    ("train", f"--{name.replace('_', '-')}"): ["x", "nan", repr(limits.least - 1), repr(limits.most * 2)]
    for name, limits in LIMITS.items()
    if name in [one for one, *_ in TRAINING]
}


def every_option():
    """(command, name) of each option with a value and each argument, as the parser itself has them."""
    return sorted({(command, name) for command, _, name in named_options()})


def test_every_option_with_a_value_says_what_it_cannot_be():
    assert every_option() == sorted(NONSENSE), "a new option is given here what it cannot be"


@pytest.mark.parametrize(("command", "name"), sorted(name for name, value in NONSENSE.items() if value))
def test_an_option_used_wrongly_ends_with_status_2_before_anything_begins(command, name, capsys, monkeypatch, tmp_path):
    (tmp_path / RUN).mkdir(parents=True)
    (tmp_path / "runs" / "whole" / "executed").mkdir(parents=True)
    (tmp_path / "runs" / "whole" / "settings.json").touch()
    (tmp_path / RUN / "settings.json").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("helpers.__main__.one_net", lambda debug: pytest.fail("the command began"))
    values, needed = NONSENSE[command, name], {"export": ["run", "target"], "shots": ["run"], "kit": ["folder"]}
    whole = {"run": "runs/whole", "target": "new", "folder": "new"}
    for value in values if isinstance(values, list) and name != "--compare" else [values]:
        words = [value if one == name else whole[one] for one in needed.get(command, [])]
        if name.startswith("-"):
            words += [name, *value] if isinstance(value, list) else [f"{name}={value}"]
        elif name not in needed.get(command, []):
            words += [value]
        with pytest.raises(SystemExit) as ended:
            main([command, *words])
        said = capsys.readouterr().err
        told = SHOWN.get(name, name)
        assert ended.value.code == 2 and re.search(rf"error: argument (--\S+/)?{told}: ", said), (words, said)
        assert len(said) < 3000 and "Traceback" not in said


def test_options_that_only_this_machine_makes_wrong_end_with_status_2_before_anything_begins(capsys, monkeypatch):
    monkeypatch.setattr("helpers.project.script.train_alone", lambda *given, **named: pytest.fail("it began"))
    monkeypatch.setattr("helpers.settings.can_import", lambda name: False)
    for words, said in {
        "--attention=varlen": "varlen.*needs a GPU",
        "--tracking=trackio": "pip install trackio",
        "--use-dora=True --init-lora-weights=pissa": "init_lora_weights",
        "--target-modules=q_prj": "has no linear layer q_prj.*It has: .*q_proj",
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(["train", "--profile=smoke", *words.split()])
        printed = capsys.readouterr().err
        assert ended.value.code == 2 and re.search(f"error: .*{said}", printed), printed


TOGETHER = {
    "a converter of no file": (["export", RUN, "new", "--llama-cpp=llama"], "--llama-cpp"),
    "a converter that lacks a kind": (["export", RUN, "new", "--llama-cpp=llama", "--gguf=Q4_0"], "--llama-cpp"),
    "a folder that is no kit": (["kit", "runs", "--serve"], "folder"),
}


@pytest.mark.parametrize(("arguments", "name"), TOGETHER.values(), ids=TOGETHER)
def test_options_that_cannot_go_together_end_with_status_2(arguments, name, capsys, monkeypatch, tmp_path):
    (tmp_path / RUN).mkdir(parents=True)
    (tmp_path / RUN / "settings.json").touch()
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "convert_hf_to_gguf.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("helpers.__main__.one_net", lambda debug: pytest.fail("the command began"))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and f"error: argument {name}: " in capsys.readouterr().err


def test_a_file_of_figures_that_cannot_be_written_is_said_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("helpers.__main__.one_net", lambda debug: pytest.fail("the command began"))
    for target in (tmp_path, "", __file__ + "/x.json", "/proc/none/x.json"):
        with pytest.raises(SystemExit):
            main(["bench", f"--json={target}"])
        assert "argument --json" in capsys.readouterr().err


def test_what_others_have_written_gives_the_terminal_no_orders(capsys):
    main(["verify", "\x1b[2Jcode", "03-1-0-~1b~[2J~9b~2J-x"])
    said = capsys.readouterr().out
    assert "\\x1b[2J" in said and not set(said) & {"\x1b", "\x9b"}
    assert "\x1b" not in explain.in_a_sentence(FileNotFoundError(2, "none", "\x1b[2J"))


def test_only_a_site_is_made_anew(tmp_path):
    """A mistyped --target would have deleted a home folder."""
    from helpers.project.pages import SiteError, make_anew

    own = tmp_path / "letters"
    own.mkdir()
    make_anew(own)  # an empty folder becomes one
    (own / "page.html").write_text("of the site")
    make_anew(own)
    assert [path.name for path in own.iterdir()] == [".nojekyll"]
    (tmp_path / "letter").write_text("dear reader")
    for folder in (tmp_path, tmp_path / "letter", PROJECT, PROJECT.parent):
        with pytest.raises(SiteError, match="would be deleted"):
            make_anew(folder)
    (own / ".git").mkdir()
    with pytest.raises(SiteError, match="git repository"):
        make_anew(own)
    assert (tmp_path / "letter").read_text() == "dear reader"


def test_what_nobody_expected_is_told_in_a_sentence_and_shown_by_debug(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("helpers.__main__.run_plan", lambda chosen: {}["lost"])
    monkeypatch.setattr(ending.tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(SystemExit, match=r"error: 'lost' \(KeyError\)(.|\n)*with --debug"):
        main(["plan"])
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--debug"])
    (log,) = tmp_path.glob("*.log")
    assert str(log) in str(ended.value) and "Traceback" in log.read_text() and "Traceback" in capsys.readouterr().err


def test_an_interrupt_has_the_status_that_shells_know(monkeypatch):
    def stop(chosen):
        raise KeyboardInterrupt

    monkeypatch.setattr("helpers.__main__.run_plan", stop)
    with pytest.raises(SystemExit) as ended:
        main(["plan"])
    assert ended.value.code == 130


NAMES = ("model", "data", "template", "target_modules", "columns")
SETTINGS = [(name, value) for name in LIMITS for value in ("4", None, True, [1], 1e300, -2, float("nan"))]
SETTINGS += [(name, value) for name in CHOICES for value in ("sideways", 3, None)]
SETTINGS += [(name, value) for name in NAMES for value in (7, None, {}, "a\0b")]
SETTINGS += [("packing", "yes"), ("rank", 4)]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_a_settings_file_with_an_odd_value_is_refused_by_name(name, value, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(Settings().as_dict() | {name: value}))
    with pytest.raises(SystemExit, match=rf"{name}"):
        main(["train", "--settings", str(path)])


NEAR = [
    ("r", "16", "without quotation marks"),
    ("rank", 4, "no such setting"),
    ("leaning_rate", 1, "learning_rate"),
    ("attention", "spda", "sdpa"),
    ("max_length", 1.5, "write 2"),
    ("target_modules", ["q_proj", "v_proj"], "q_proj,v_proj"),
    ("learning_rate", 1e30, "1e-4 to 4e-3"),
]


@pytest.mark.parametrize(("name", "value", "near"), NEAR)
def test_the_near_miss_is_named(name, value, near, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(Settings().as_dict() | {name: value}))
    with pytest.raises(SystemExit, match=near):
        main(["train", "--settings", str(path)])


@pytest.mark.parametrize("odd", ["9" * 5000, ["a" * 5000], 10**400])
def test_a_value_of_any_length_is_refused_in_a_short_sentence(odd):
    for name in ("max_length", "learning_rate", "model"):
        if (name, type(odd)) != ("model", str):
            with pytest.raises(SettingsError) as refused:
                check_values({name: odd})
            assert name in str(refused.value) and len(str(refused.value)) < 500


def test_a_console_that_lacks_a_letter_shows_something_else(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr("helpers.__main__.run_plan", lambda chosen: print("数据 7 €"))
    main(["plan"])
    console.flush()
    assert b"7 \x80" in console.buffer.getvalue()


LOCALES = [
    {"LC_ALL": "POSIX"},
    {"PYTHONIOENCODING": "cp1252"},
]


@pytest.mark.processes
@pytest.mark.parametrize("locale", LOCALES)
def test_a_chinese_file_is_trained_in_any_locale(locale, tmp_path):
    data = tmp_path / "数据.jsonl"
    rows = [{"question": f"什么是 {n}?", "answer": f"是 {n}."} for n in range(20)]
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("LANG", "PYTHONUTF8")}
    environment |= {"FT_RUNS": str(tmp_path / "运行"), "PYTHONPATH": str(PROJECT), **locale}
    command = [sys.executable, "-m", "helpers", "train", "--profile", "smoke", "--max-steps", "1", "--data", str(data)]
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    (settings,) = tmp_path.glob("运行/*/settings.json")
    assert json.loads(settings.read_text(encoding="utf-8"))


def test_a_file_name_that_python_was_told_not_to_read_ends_with_the_setting():
    error = UnicodeEncodeError("utf-8", "\udce6", 0, 1, "surrogates not allowed")
    assert "PYTHONUTF8=1" in explain.in_a_sentence(error)


def test_a_terminal_that_is_closed_stops_a_training_as_sigterm_does():
    from helpers.train.interrupt import StopGuard

    with StopGuard() as guard:
        signal.raise_signal(signal.SIGHUP)
        assert guard.asked


STOPPED = """
import subprocess, sys, time
from helpers import __main__ as commands

def work(chosen):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        print(child.pid, flush=True)
        time.sleep(60)
    finally:
        child.kill()
        child.wait()
        print("cleared away", flush=True)

commands.run_plan = work
commands.main(["plan"])
"""


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_stops_a_command_ends_what_it_has_started(number):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", STOPPED], env=environment, **pipes) as process:
        child = int(process.stdout.readline())
        process.send_signal(number)
        said = process.communicate(timeout=60)
    assert "cleared away" in said[0] and "stopped by you" in said[1] and "Traceback" not in said[1]
    assert process.returncode == 128 + number and not os.path.exists(f"/proc/{child}")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
