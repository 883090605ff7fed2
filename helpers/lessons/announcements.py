"""One sentence as a cell's output: announced by screen readers where a notebook shows it, plain text elsewhere."""

import html
import sys


def announce(text: str, role: str = "status") -> None:
    """Shows a sentence. As HTML it is a new region: screen readers say one with role "alert", and few a "status"."""
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from IPython.display import display

        display({"text/html": region(text, role), "text/plain": text}, raw=True)
    else:
        print(text)


def region(text: str, role: str = "status") -> str:
    """The sentence as HTML, escaped; the first word says what the colour of others would say."""
    return f'<div role="{role}">{html.escape(text)}</div>'
