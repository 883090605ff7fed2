"""A data set of the Hub, at its commit and as the Hub has it. Knows nothing of rows."""

import shutil
from pathlib import Path
from typing import Any

from helpers.data.rows import DataError
from helpers.machine.fetched import damaged_files
from helpers.machine.hub import hub_words
from helpers.machine.language import tr


def hub_rows(source: str) -> Any:
    """A data set of the Hub at the commit that its name ends with. No code of the data set is run."""
    from datasets import load_dataset

    name, revision = source.split("@")
    try:
        loaded = load_dataset(name, revision=revision)
    except Exception as error:  # the Hub, a connection, a disk, a file: all end here
        refuse_damaged(source)
        words = hub_words(error) or tr(
            "it could not be loaded ({kind}: {error})", kind=type(error).__name__, error=str(error)[:150]
        )
        raise DataError(tr("{source}: {words}.", source=source, words=words)) from error
    made = {Path(file["filename"]).parent for part in loaded.values() for file in part.cache_files}
    try:
        refuse_damaged(source)
    except DataError:
        for folder in made:  # or the rows would be taken from there next time
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return loaded


def refuse_damaged(source: str) -> None:
    """Raises DataError when a file of a data set is not what the Hub has; it is fetched again next time."""
    name, revision = source.split("@")
    if wrong := damaged_files(name, revision, "datasets"):
        raise DataError(
            tr(
                "{source}: {file} is not what the Hub has, its hash is another; it was removed from the cache: "
                "load it again.",
                source=source,
                file=wrong[0],
            )
        )
