"""Taking a model away: adapter, merge, GGUF, model card, the Hub, and plans for larger machines.

Knows what a run's folder holds, and no trainer.
"""

from helpers.export.adapter import export_adapter, vllm_command, vllm_faults, with_base
from helpers.export.errors import ExportError
from helpers.export.gguf import write_gguf
from helpers.export.merge import read_adapter

__all__ = ["ExportError", "export_adapter", "read_adapter", "vllm_command", "vllm_faults", "with_base", "write_gguf"]
