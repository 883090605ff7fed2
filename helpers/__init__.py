"""Helpers of the notebook series; one concept a module, and importing any of them does nothing by itself."""

__version__ = "0.1.0"
