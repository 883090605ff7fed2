"""Panels of widgets, thin: what they show is computed elsewhere. And the app, which serves one of them.

They know no training and compute no answer. What a visitor's kernel imports loads no torch, so this wing hands on no
names.
"""
