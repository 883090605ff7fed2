"""The error of this wing."""


class ExportError(ValueError):
    """An adapter or a model cannot be exported as it is; the message says why and what to do."""
