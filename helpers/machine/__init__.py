"""The machine: where files lie, what hardware there is, how much memory work takes, what a run's card may hold.

Knows files, names and numbers; imports no other wing, and loads no model and no data. Hands on no names, since some
of its modules load torch and others are for clients that must not.
"""
