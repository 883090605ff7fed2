"""Serving: the server that lends one model to several panels, its client, and OpenAI's interface.

Knows no widgets. Hands on no names, since a visitor's kernel imports `remote` without torch.
"""
