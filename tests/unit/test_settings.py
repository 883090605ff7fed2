import json
import os
from dataclasses import fields
from pathlib import Path

import pytest

from helpers import settings as module
from helpers.data import chat
from helpers.data.formats import FORMATS
from helpers.data.load import SHOP
from helpers.limits import CHOICES
from helpers.machine.hardware import Choice, Machine
from helpers.machine.values import in_short
from helpers.run import read_settings
from helpers.settings import PROFILES, Settings, SettingsError, resolve

T4 = Machine((7, 5), "T4", 14.6, 12.7, 2, False)
A10 = Machine((8, 6), "A10", 22.0, 64.0, 8, False)
L4_24 = Machine((8, 9), "L4", 24.0, 64.0, 8, False)
H100 = Machine((9, 0), "H100", 79.0, 128.0, 16, True)
LAPTOP = Machine(None, "", 0.0, 8.0, 2, False)
HUB, NO_HUB = Choice(True, "it answers"), Choice(False, "no answer")


@pytest.mark.parametrize(
    ("machine", "hub", "profile"),
    [
        (LAPTOP, HUB, "laptop"),
        (T4, HUB, "colab"),
        (T4, NO_HUB, "laptop"),
        (A10, HUB, "colab"),
        (L4_24, HUB, "datacenter"),
        (H100, HUB, "datacenter"),
        (H100, NO_HUB, "laptop"),
    ],
)
def test_each_machine_gets_its_profile_with_a_reason(machine, hub, profile):
    resolved = resolve(machine=machine, hub=hub)
    assert resolved.profile == profile and resolved.reasons["profile"]


def test_a_t4_trains_nf4_in_float16_and_an_h100_bfloat16_unquantized():
    on_t4, on_h100 = resolve(machine=T4, hub=HUB), resolve(machine=H100, hub=HUB)
    assert (on_t4.quantization, on_t4.dtype, on_t4.autocast) == ("nf4", "float16", "float16")
    assert (on_h100.quantization, on_h100.dtype) == ("none", "bfloat16")
    assert resolve(machine=L4_24, hub=HUB).quantization == "nf4"


def test_the_parameter_goes_before_the_environment_before_detection(monkeypatch):
    assert resolve(machine=LAPTOP).profile == "laptop"
    monkeypatch.setenv("FT_PROFILE", "smoke")
    assert resolve().profile == "smoke"
    assert resolve("laptop").profile == "laptop"


def test_what_another_machine_would_get_does_not_follow_this_ones_environment(monkeypatch):
    monkeypatch.setenv("FT_PROFILE", "smoke")
    assert resolve(machine=T4, hub=HUB).profile == "colab"
    assert resolve(machine=H100, hub=HUB).profile == "datacenter"


def test_an_override_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("FT_MODEL", "tiny-falcon")
    assert resolve("smoke", machine=LAPTOP).model == "tiny-falcon"
    assert resolve("smoke", machine=LAPTOP, model="tiny-llama").model == "tiny-llama"


def test_none_keeps_the_profiles_value_and_a_value_says_who_set_it():
    resolved = resolve("laptop", machine=LAPTOP, r=None, learning_rate=5e-4)
    assert resolved.r == PROFILES["laptop"].get("r", Settings.r)
    assert resolved.learning_rate == 5e-4 and resolved.reasons["learning_rate"] == "set by you"


def test_the_hub_is_not_asked_without_a_gpu(monkeypatch):
    monkeypatch.setattr(module, "hub_reachable", lambda: pytest.fail("nothing depends on it"))
    assert resolve(machine=LAPTOP).profile == "laptop"


def test_another_model_does_not_get_falcons_revision(monkeypatch):
    monkeypatch.setattr(module, "pinned", lambda model, wanted: Choice(f"{wanted} of {model}", "so it was"))
    assert resolve("datacenter", machine=H100, hub=HUB).revision == module.FALCON_REVISION
    other = resolve("datacenter", machine=H100, hub=HUB, model="org/other")
    assert (other.revision, other.reasons["revision"]) == ("main of org/other", "so it was")


def test_a_commit_can_be_named_behind_the_models_name(monkeypatch):
    monkeypatch.setattr("helpers.machine.pins.hub_reachable", lambda: pytest.fail("nothing is to be looked up"))
    commit = "abc123" * 6 + "abcd"
    settings = resolve("datacenter", machine=H100, hub=HUB, model=f"org/other@{commit}")
    assert (settings.model, settings.revision) == ("org/other", commit)
    assert resolve("laptop", machine=LAPTOP, model="./a/folder@x").model == "./a/folder@x"


def test_a_model_of_ones_own_keeps_its_own_template():
    assert resolve("laptop", machine=LAPTOP).template == "guanaco"
    assert resolve("laptop", machine=LAPTOP, model="./own").template == "auto"
    assert resolve("laptop", machine=LAPTOP, model="./own", template="chatml").template == "chatml"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"dtype": "float16"}, "float16"),
        ({"device": "cuda"}, "cuda"),
        ({"quantization": "int3"}, "int3"),
        ({"max_length": 0}, "max_length"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"lora_rank": 8}, "lora_rank"),
    ],
)
def test_a_setting_that_cannot_work_is_named(wrong, named):
    with pytest.raises(SettingsError, match=named):
        resolve("laptop", machine=LAPTOP, **wrong)


def test_an_unknown_profile_names_those_that_exist():
    with pytest.raises(SettingsError, match=r"auto, smoke, laptop, colab, datacenter .did you mean 'laptop'"):
        resolve("lapdog", machine=LAPTOP)


def test_the_learning_rate_is_loras_in_every_profile():
    for profile in PROFILES:
        assert resolve(profile, machine=H100, hub=HUB).learning_rate >= 2e-4


@pytest.mark.parametrize("profile", PROFILES)
def test_the_table_shows_every_setting_with_its_reason(profile):
    resolved = resolve(profile, machine=H100, hub=HUB)
    rows = resolved.table().splitlines()
    names = [f.name for f in fields(Settings) if f.name != "reasons"]
    assert [row.split()[0] for row in rows] == names
    assert all(
        row.endswith(resolved.reasons[name]) and resolved.reasons[name] for row, name in zip(rows, names, strict=True)
    )


@pytest.mark.parametrize(
    ("machine", "kernel"), [(LAPTOP, "rows"), (T4, "efficient"), (A10, "varlen"), (H100, "varlen")]
)
def test_each_machine_gets_its_attention_kernel_with_a_reason(machine, kernel):
    resolved = resolve(machine=machine, hub=HUB)
    assert resolved.attention == kernel and resolved.reasons["attention"] != "set by you"


def test_an_attention_kernel_that_is_set_is_kept_and_one_that_cannot_work_is_named():
    assert resolve("laptop", machine=LAPTOP, attention="sdpa").attention == "sdpa"
    with pytest.raises(SettingsError, match="varlen"):
        resolve("laptop", machine=LAPTOP, attention="varlen")
    with pytest.raises(SettingsError, match=r"flash9.*varlen, efficient"):
        resolve("laptop", machine=LAPTOP, attention="flash9")


def test_float32_on_a_new_card_does_not_get_the_16_bit_kernel():
    assert resolve("datacenter", machine=H100, hub=HUB, dtype="float32").attention == "efficient"


def test_what_is_free_decides_not_what_is_built_in():
    assert H100._replace(free_gib=3.5).usable_gib == 3.5 and H100.usable_gib == 79.0 and LAPTOP.usable_gib == 8.0


def test_a_tracker_is_a_known_one_that_is_installed(monkeypatch, tmp_path):
    assert resolve("smoke").tracking == "none"
    with pytest.raises(SettingsError, match="one of none, tensorboard, trackio"):
        resolve("smoke", tracking="wandb")
    monkeypatch.setattr("helpers.settings.can_import", lambda name: False)
    with pytest.raises(SettingsError, match="pip install trackio"):
        resolve("smoke", tracking="trackio")
    monkeypatch.setattr("helpers.settings.can_import", lambda name: name == "tensorboardX")
    assert resolve("smoke", tracking="tensorboard").tracking == "tensorboard"


def test_a_folder_with_the_name_of_a_package_is_not_that_package(monkeypatch, tmp_path):
    (tmp_path / "trackio_lookalike").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert module.can_import("json") and not module.can_import("trackio_lookalike")


def test_a_readers_own_data_is_asked_a_stated_number_of_questions():
    laptop = {"machine": Machine(None, "", 0.0, 8.0, 2, False)}
    assert resolve("laptop", **laptop).evaluation_questions == 0
    own = resolve("laptop", data="mine.jsonl", **laptop)
    assert own.evaluation_questions == 100 and "0 is all" in own.reasons["evaluation_questions"]
    assert resolve("laptop", data="mine.jsonl", evaluation_questions=7, **laptop).evaluation_questions == 7


def test_the_data_of_no_profile_is_the_shops():
    assert Settings().data == SHOP


ODD = [
    *(None, "", " ", "nan", "inf", "8", "1e3", "../../x", "x" * 300, "x/" * 150, "x" * 100_000, "\ud800", "a\0b"),
    *("a\nb", "\x1b[2J", "数据", "/dev/zero", "/proc/self/mem", "https://example.org/y/z", "~nobody-of-this-name/x"),
    *("a/b", "a=b", "-", "--", -1, 0, 1, 8, 0.5, 1e308, -1e308, float("inf"), float("nan"), 10**30, 10**400),
    *(-(10**5000), 10**5000, True, False, [], [1], ["a"], [[]], [[[1]]], {}, {"a": 1}, {"a": "b"}, {"a": {"b": []}}),
    *({1: 2}, b"", b"x", (1,), {1}, frozenset(), object(), Path("."), Path("x" * 300), complex(1), len, type),
]
SAME = [("init_lora_weights", True, "default"), ("columns", {}, "")]  # PEFT's spelling; no mapping


def meant(name, value, kept):
    """Whether a setting holds what it was given, in its own type."""
    if value is None:  # the profile's
        return True
    wanted = next((known for of, given, known in SAME if name == of and given == value), value)
    wanted = str(wanted) if isinstance(wanted, Path) else wanted
    return kept == wanted and isinstance(kept, bool) == isinstance(wanted, bool)


@pytest.mark.parametrize("name", [f.name for f in fields(Settings)])
def test_any_value_of_any_setting_is_meant_or_refused_in_a_sentence_that_names_both(name, monkeypatch):
    monkeypatch.setattr("helpers.machine.pins.hub_reachable", lambda: NO_HUB)
    for value in ODD:
        try:
            given = {"profile": value} if name == "profile" else {"profile": "smoke", name: value}
            kept = getattr(resolve(machine=LAPTOP, **given), name)
        except SettingsError as error:
            said = str(error)
            assert len(said) < 600 and "\n" not in said, value
            shown = in_short(value) in said or in_short(os.fspath(value) if isinstance(value, Path) else "?") in said
            assert name in said and (name == "reasons" or isinstance(value, dict) or shown), said
        else:
            assert meant(name, value, kept), (value, kept)


@pytest.mark.parametrize("name", [f.name for f in fields(Settings)])
def test_any_value_in_a_settings_file_is_meant_or_refused_in_a_sentence_that_names_it(name, tmp_path):
    path = tmp_path / "settings.json"
    for value in ODD:
        try:
            path.write_text(json.dumps(Settings().as_dict() | {name: value}))
        except (TypeError, ValueError):
            continue  # no JSON
        try:
            kept = getattr(read_settings(path), name)
        except SettingsError as error:
            said = str(error)
            assert name in said and len(said) < 600 and "\n" not in said, value
        else:
            assert value is not None or name == "reasons"
            assert name == "reasons" or (kept == value and type(kept) in (type(value), float)), (value, kept)


def test_names_that_are_written_twice_so_that_less_is_loaded_are_the_same():
    assert CHOICES["profile"] == tuple(PROFILES)
    assert CHOICES["data_format"] == ("", *FORMATS)
    assert set(CHOICES["template"]) == {chat.AUTO, chat.MODEL, *chat.TEMPLATES}


def test_an_environment_that_names_what_there_is_not_is_refused(monkeypatch):
    monkeypatch.setenv("FT_PROFILE", "lapptop")
    with pytest.raises(SettingsError, match=r"profile='lapptop': .*did you mean 'laptop'"):
        resolve()
    monkeypatch.setenv("FT_PROFILE", "auto")
    assert resolve(machine=None, hub=NO_HUB).profile in PROFILES
    monkeypatch.setenv("FT_MODEL", "~nobody-of-this-name/x")
    with pytest.raises(SettingsError, match="is no user of this machine"):
        resolve("smoke")
