"""Taking a model away: adapter, merge, GGUF, model card, the Hub, and plans for larger machines.

Knows what a run's folder holds, and no trainer.
"""

from helpers.export.adapter import export_adapter, vllm_command, vllm_faults, with_base
from helpers.export.errors import ExportError
from helpers.export.forms import llama_cpp_form, merged_form
from helpers.export.gguf import write_gguf
from helpers.export.merge import read_adapter
from helpers.export.parity import Reference, compare_forms
from helpers.export.plan import options_table, shape_for

__all__ = [
    "ExportError",
    "Reference",
    "compare_forms",
    "export_adapter",
    "llama_cpp_form",
    "merged_form",
    "options_table",
    "read_adapter",
    "shape_for",
    "vllm_command",
    "vllm_faults",
    "with_base",
    "write_gguf",
]
