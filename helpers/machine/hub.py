"""What the Hub says when it does not give what was asked for, in words. Loads nothing."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from helpers.machine.language import phrase, tr

KEPT = phrase("what was fetched is kept")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def hub_words(error: BaseException) -> str:
    """What an error says about the Hub and what to do; "" when it is about something else."""
    from huggingface_hub import errors

    absent = False
    for one in chain(error):
        if isinstance(one, OSError) and one.errno == errno.ENOSPC:
            return tr("the disk is full: make room, or set HF_HOME to a folder on another one; {kept}", kept=KEPT)
        if "Consistency check" in str(one):  # huggingface_hub's, of a file's length
            return tr(
                "what came of one of its files is longer or shorter than the Hub says: load it again, and where that "
                "does not help, without the proxy or network between"
            )
        absent_data = type(one).__name__ == "DatasetNotFoundError"  # of datasets, which is not imported for this
        if isinstance(one, errors.GatedRepoError) or (absent_data and "gated" in str(one)):
            return tr(
                "it is gated: accept its terms on its page on the Hub, log in with `hf auth login`, then load it again"
            )
        if isinstance(one, errors.RevisionNotFoundError):
            return tr("the Hub has it, but not in this version: take a commit from its page, as name@commit")
        if isinstance(one, errors.RepositoryNotFoundError) or absent_data:
            return tr(
                "the Hub has nothing of this name, or it is private: check the name, or log in with `hf auth login`"
            )
        if isinstance(one, errors.HfHubHTTPError) and one.response is not None:
            return answered(one.response.status_code, one.response.headers.get("Retry-After"))
        wire = type(one).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")
        absent |= "OfflineModeIsEnabled" in str(one)  # datasets keeps its name alone
        if (wire or isinstance(one, ConnectionError)) and not absent:
            return tr(
                "the connection to the Hub ended ({kind}): load it again and it goes on; {kept}",
                kind=type(one).__name__,
                kept=KEPT,
            )
        absent |= isinstance(one, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError))
    if absent:
        return tr("its files are not all in the cache, and the Hub is out of reach: connect once, and load it again")
    return ""


def answered(status: int, wait: str | None) -> str:
    """What a status of the Hub means. wait: seconds that it asks for."""
    if status == 429:
        when = tr("in {wait} s", wait=wait) if wait and wait.isdigit() else tr("in some minutes")
        return tr("the Hub has had too many requests from here: load it again {when}; {kept}", when=when, kept=KEPT)
    if status >= 500:
        return tr(
            "the Hub does not work at the moment (status {status}): load it again later; {kept}",
            status=status,
            kept=KEPT,
        )
    return tr("the Hub refuses (status {status}): log in with `hf auth login`, or choose another", status=status)
