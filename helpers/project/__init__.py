"""The project itself: the doctor, the series as `make run` runs it, its report, the benchmark.

May know everything; nothing but the command line and notebooks knows it.
"""
