"""Panels of widgets, thin: what they show is computed elsewhere. And the app, which serves one of them.

They know of training what previews a batch and which run answers, and compute no answer themselves. What a visitor's
kernel imports loads no torch, so this wing hands on no names.
"""
