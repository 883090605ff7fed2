"""Generating: sampling, decoding with a draft, streaming, next-token probabilities, the engine behind a panel.

Takes a model as it comes; knows nothing of how it was loaded or trained. Hands on no names, since a visitor's kernel
imports `events` and `sampling` without torch.
"""
