"""What Run All takes, added up before anything is fetched."""

from dataclasses import replace

from helpers.machine.hardware import Choice, Machine
from helpers.machine.paths import cache_folder
from helpers.project.measured import measured_notebooks, measured_on_gpu, measured_run
from helpers.project.needs import CARDS, models_folder, needs, with_gpu_row
from helpers.settings import resolve


def test_run_all_is_added_up_for_a_laptop_and_for_both_gpu_profiles():
    laptop = {need.what: need for need in needs(resolve("laptop", machine=Machine(None, "", 0.0, 16.0, 2, True)))}
    assert laptop["download, once"].much == "93 MB" and laptop["memory of the GPU"].much == "none"
    assert laptop["minutes, all notebooks"].much == f"{measured_run()['minutes']:.0f}"
    for profile, card in CARDS.items():
        settings = resolve(profile, machine=card, hub=Choice(True, "assumed"))
        table = {need.what: need for need in needs(settings)}
        assert table["download, once"].much == "13.8 GB" and "calculated" in table["download, once"].known
        assert float(table["memory of the GPU"].much.split()[0]) < card.gpu_gib
        card = measured_on_gpu(profile)
        rest = {"colab": "5", "datacenter": "3"}[profile]  # 03's loading, answers and measuring among it
        words = f"{settings.minutes:g} for 03's training, {rest} for all else in 00 to 04; 05 to 07 not measured"
        assert table["minutes, all notebooks"].much == words
        assert table["memory of the host"].much.startswith(f"{card['held']:.1f} GiB, and ")
        assert f"one {card['card']}, {card['date']}" in table["memory of the host"].known
        assert float(table["disk"].much.split()[0]) > 2 * 13.7
    other = needs(replace(resolve("laptop", machine=Machine(None, "", 0.0, 16.0, 2, True)), model="./own"))
    assert [need.much for need in other] == ["not known", "not known", "not measured", "none", "not measured"]


def test_a_headers_row_for_gpus_says_what_was_measured_and_what_is_calculated():
    def row(number):
        text = with_gpu_row("| laptop | 1 | 2 |\n| colab, datacenter | x | y |\nfurther", number)
        assert text.startswith("| laptop | 1 | 2 |\n| colab, datacenter | ") and text.endswith(" |\nfurther")
        return text.split("\n")[1]

    (one, other), _ = measured_notebooks("04", tuple(CARDS))
    assert f" {one['seconds'] / 60:.1f} or {other['seconds'] / 60:.1f} (one H100, random weights" in row("04")
    assert "training takes 20 or 10 at most (MINUTES), all else 1.2 or 0.7 (one H100" in row("03")
    assert "calculated" in row("03") and "no GPU" in row("02") and row("00") != row("01")
    alone = {number: "13.8 GB come from the Hub" in row(number) for number in ("00", "01", "02", "03", "04")}
    assert alone == {"00": True, "01": True, "02": False, "03": True, "04": True}, "each of them opens alone"
    assert "not measured" in row("07") and "13.8 GB of disk" in row("06")


def test_the_free_disk_is_that_of_the_cache_in_which_the_model_will_lie(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    embedded = resolve("laptop", machine=Machine(None, "", 0.0, 16.0, 2, True))
    assert models_folder(embedded) == cache_folder()
    assert models_folder(replace(embedded, model="tiiuae/falcon-7b")) == tmp_path / "hub"
