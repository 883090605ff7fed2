import json

import pytest
from nbformat import read

from helpers.__main__ import main
from helpers.machine.paths import PROJECT, runs_folder
from helpers.run import read_settings
from helpers.settings import Settings, SettingsError
from helpers.watch.history import marks, read_history


@pytest.fixture
def own_file(tmp_path):
    """Forty rows of question and answer."""
    path = tmp_path / "mine.jsonl"
    path.write_text(
        "".join(json.dumps({"question": f"What is {n}?", "answer": f"It is {n}."}) + "\n" for n in range(40))
    )
    return path


def train(*arguments):
    main(["train", *map(str, arguments)])
    return max(runs_folder().iterdir(), key=lambda folder: folder.stat().st_mtime)


def test_a_reader_s_file_is_trained_by_one_command(own_file, capsys):
    folder = train("--profile", "smoke", "--data", own_file, "--max-steps", 4, "--evaluation-questions", 3)
    card = json.loads((folder / "run_card.json").read_text())
    assert card["steps"] == 4 and card["finished"] and card["data"] == str(own_file)
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    said = capsys.readouterr().out
    assert "read as question_answer" in said and "40 rows read, 40 kept" in said and "step 4 of 4" in said
    answers = json.loads((folder / "answers.json").read_text())["answers"]
    assert len(answers) == 3 and "3 of 4 held-out questions" in said and answers[0]["question"] in said
    assert set(card["nll"]) == {"base", "tuned"} and "NLL (nats a token)" in said


def test_every_setting_of_03_is_an_option(capsys):
    (cell,) = (c for c in read(PROJECT / "notebooks/03_finetune_with_lora.ipynb", 4).cells if c.id == "03-02")
    names = {"resume": "new"}
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    options = capsys.readouterr().out
    for line in cell.source.splitlines():
        name = line.split(" ")[0].lower()
        if name == "more":  # each of its names is an option of its own
            continue
        assert f"--{names.get(name, name).replace('_', '-')} " in options.replace("\n", " "), name


def test_the_settings_of_a_run_take_it_up_again(own_file):
    folder = train("--profile", "smoke", "--data", own_file, "--max-steps", 4)
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps({**settings, "max_steps": 6}))
    assert train("--settings", folder / "settings.json") == folder
    assert json.loads((folder / "run_card.json").read_text())["steps"] == 6
    assert marks(read_history(folder / "history.jsonl"), "resume") == [4]
    assert len(list(runs_folder().iterdir())) == 1


def test_an_unfinished_run_is_taken_up_unless_a_new_one_is_asked_for(own_file):
    folder = train("--profile", "smoke", "--data", own_file, "--max-steps", 4)
    (folder / "run_card.json").unlink()
    assert train("--profile", "smoke", "--data", own_file, "--max-steps", 5) == folder
    (folder / "run_card.json").unlink()
    assert train("--profile", "smoke", "--data", own_file, "--max-steps", 5, "--new") != folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "{own}", "--format", "alpaca"), "no row can be used"),
        (("--data", "{own}", "--allow", "los"), "--allow: 'los': it is one of quantized, end tokens, human"),
        (("--settings", "{own}"), "does not hold settings"),
    ],
)
def test_a_mistake_ends_with_one_line(own_file, arguments, words, capsys):
    profile = () if "--profile" in arguments or "--settings" in arguments else ("--profile", "smoke")
    with pytest.raises(SystemExit) as ended:
        main(["train", *profile, *(a.replace("{own}", str(own_file)) for a in arguments)])
    assert words in str(ended.value) + capsys.readouterr().err


def test_settings_survive_their_file(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(Settings(r=7).as_dict()))
    assert read_settings(path) == Settings(r=7)
    path.write_text(json.dumps({"rank": 7}))
    with pytest.raises(SettingsError, match="no such setting: rank"):
        read_settings(path)
