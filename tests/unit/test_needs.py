"""What Run All takes, added up before anything is fetched."""

from dataclasses import replace

from helpers.machine.hardware import Choice, Machine
from helpers.project.measured import measured_on_gpu, measured_run
from helpers.project.needs import CARDS, needs, with_gpu_row
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
        assert table["minutes, all notebooks"].much.startswith(f"{settings.minutes:g} ")
        card = measured_on_gpu(profile)
        assert table["memory of the host"].much.startswith(f"{card['held']:.1f} GiB, and ")
        assert f"one {card['card']}, {card['date']}" in table["memory of the host"].known
        assert float(table["disk"].much.split()[0]) > 2 * 13.7
    other = needs(replace(resolve("laptop", machine=Machine(None, "", 0.0, 16.0, 2, True)), model="./own"))
    assert [need.much for need in other] == ["not known", "not known", "not measured", "none", "not measured"]


def test_a_headers_row_for_gpus_says_what_is_calculated():
    text = with_gpu_row("| laptop | 1 | 2 |\n| colab, datacenter | x | y |\nfurther")
    assert text.startswith("| laptop | 1 | 2 |\n| colab, datacenter | 03's training at most 20 or 10 (MINUTES)")
    assert "calculated" in text and text.endswith("|\nfurther")
