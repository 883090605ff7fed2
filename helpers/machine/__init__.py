"""The machine: where files lie, what hardware there is, what memory it has, which processes train.

Knows nothing of models, data or trainings.
"""
