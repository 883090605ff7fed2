"""Lessons in a bare kernel, as VS Code, Colab or a console talk to it: no widget is ever answered or drawn.

JupyterLab and the classic notebook are real ones in tests/browser; VS Code and Colab cannot be started here, so what
is tested is what they are sent: every output has to say all that it says as HTML and as plain text, too.
"""

import os
import sys

import pytest
from jupyter_client.manager import KernelManager

from helpers.lessons.questions import QUESTIONS
from helpers.machine.paths import PROJECT

pytestmark = [pytest.mark.processes, pytest.mark.slow]

COLAB_SET = PROJECT / ".venv-colab" / "bin" / "python"
NO_COLAB_SET = "2026-11-24: the Colab-like set is missing; `make test` makes it"
COLAB = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')"  # as helpers know it
KINDS = {  # which Python, and what is run first
    "ipywidgets 8, as VS Code": (sys.executable, ""),
    "ipywidgets 7, as Colab": (str(COLAB_SET), COLAB),
}
VIEW = "application/vnd.jupyter.widget-view+json"


class FrontEnd:
    """Sends cells and keeps what comes back; comm messages are not answered."""

    def __init__(self, python, runs):
        self.manager = KernelManager()
        self.manager.kernel_spec.argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.start_kernel(env={**os.environ, "FT_RUNS": str(runs), "PYTHONPATH": str(PROJECT)}, cwd=PROJECT)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, source):
        """What a cell shows: a dictionary by mime type for each output."""
        shown, errors = [], []

        def keep(message):
            content = message["content"]
            if message["msg_type"] in ("display_data", "execute_result"):
                shown.append(content["data"])
            elif message["msg_type"] == "error" or content.get("name") == "stderr":
                errors.append(content)

        reply = self.client.execute_interactive(source, timeout=120, allow_stdin=False, output_hook=keep)
        assert reply["content"]["status"] == "ok" and not errors, errors
        return shown

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module", params=KINDS)
def front_end(request, tmp_path_factory):
    python, first = KINDS[request.param]
    if not os.path.exists(python):
        pytest.skip(NO_COLAB_SET)
    opened = FrontEnd(python, tmp_path_factory.mktemp("runs"))
    try:
        opened.run(f"{first}\nfrom helpers.lessons import check, pass_code, predict, progress_map, revealed")
        yield opened
    finally:
        opened.close()


def test_a_question_stands_there_as_text_and_html_beside_its_widgets(front_end):
    (shown,) = front_end.run('predict("02.end")')
    question = QUESTIONS["02.end"]
    assert VIEW in shown and "<ol>" in shown["text/html"] and 'predict("02.end", 1)' in shown["text/plain"]
    for text in (question.text, *(choice for choice, _ in question.choices)):
        assert text in shown["text/plain"]


def test_it_is_answered_by_a_call(front_end):
    for choice, (_, sentence) in enumerate(QUESTIONS["02.end"].choices, 1):
        (shown,) = front_end.run(f'predict("02.end", {choice})')
        assert sentence in shown["text/plain"] and 'role="alert"' in shown["text/html"] and len(shown) == 2


def test_checks_hints_progress_and_pass_codes_need_no_widget(front_end):
    said = [front_end.run(f'check("01.1", {answer})')[0] for answer in ("...", "32.2", "4.02")]
    words = ("Not tried yet", "Not yet.", "Right.")
    assert all(word in one["text/plain"] and word in one["text/html"] for word, one in zip(words, said, strict=True))
    (code,) = front_end.run('pass_code("01", "Ada")')
    assert "01-1-" in code["text/plain"] and VIEW not in code
    (table,) = front_end.run("progress_map()")
    assert "1 of 4" in table["text/plain"] and "<table" in table["text/html"]
