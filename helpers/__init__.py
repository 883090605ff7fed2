"""Helpers of the notebook series; one concept a module. Importing any of them does one thing: it silences libraries.

Upstream: every trainer of TRL reports architecture, device and source of the data to the Hub, and huggingface_hub asks
it for a list of programs, unless this variable is set before they are imported. Set it to 0 to let them.
What they say that is known and harmless is muted by its text (machine/quiet.py).
Breaks: something leaves the machine that nobody asked for.
Drift: test_silence.py::test_the_libraries_still_send_something_where_they_are_let

Upstream: bm25s imports jax where it is installed (Colab has it), and jax takes three quarters of a GPU at its first
call unless
it is told not to (https://docs.jax.dev/en/latest/gpu_memory_allocation.html): a training in the same process is then
out of memory.
Breaks: notebook 05 ends out of memory on a GPU.
Drift: test_retrieval.py::test_bm25s_still_looks_for_jax_and_jax_is_told_to_take_no_memory_beforehand
"""

import os

from helpers.machine.quiet import quiet

__version__ = "0.1.0"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
quiet()
