"""Helpers of the notebook series; one concept a module. Importing any of them does one thing: it silences libraries.

Nothing is sent, and nothing of others is run, that nobody asked for (SILENT): a variable that is set stays as it is.

Upstream: every trainer of TRL reports architecture, device and source of the data to the Hub, and huggingface_hub asks
it for a list of programs, unless this variable is set before they are imported. Set it to 0 to let them.
What they say that is known and harmless is muted by its text (machine/quiet.py).
Breaks: something leaves the machine that nobody asked for.
Drift: test_silence.py::test_the_libraries_still_send_something_where_they_are_let

Upstream: inside of a Kubeflow job every Trainer sends its losses to the job's server, whatever report_to says
(TrainingArguments.__post_init__). Breaks: a training in a shared cluster tells what nobody asked it to.
Drift: test_silence.py::test_a_trainer_still_reports_to_kubeflow_where_it_is_let

Upstream: where the package `kernels` is installed, bitsandbytes fetches a compiled program from the Hub when it is
imported, and runs it; transformers does so for some models. Neither has a switch for all of it. Import `kernels` before
any helper to let them. Breaks: a request to the Hub, and code in this process that came with no installation.
Drift: test_silence.py::test_bitsandbytes_still_asks_the_hub_for_a_program

Upstream: bm25s imports jax where it is installed (Colab has it), and jax takes three quarters of a GPU at its first
call unless
it is told not to (https://docs.jax.dev/en/latest/gpu_memory_allocation.html): a training in the same process is then
out of memory.
Breaks: notebook 05 ends out of memory on a GPU.
Drift: test_retrieval.py::test_bm25s_still_looks_for_jax_and_jax_is_told_to_take_no_memory_beforehand
"""

import os
import sys

from helpers.machine.quiet import quiet

__version__ = "0.1.0"
SILENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GRADIO_ANALYTICS_ENABLED": "False",  # trackio brings Gradio
}
for _name, _value in {**SILENT, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}.items():
    os.environ.setdefault(_name, _value)
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]  # an import of it fails, as where it is not installed
quiet()
