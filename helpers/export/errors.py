"""The errors of this wing."""


class ExportError(ValueError):
    """An adapter or a model cannot be exported as it is; the message says why and what to do."""


class StoredOtherwise(ExportError):
    """A layer that the model has, and its files do not: they keep it under another name, or as a part of a weight."""
