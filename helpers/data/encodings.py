"""In which encoding a text file is written. Knows nothing of rows."""

import codecs
from pathlib import Path

SAMPLE = 2**18  # bytes that are looked at to tell one encoding from another
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
CHUNK = 2**20
SURE = 0.5  # chardet's confidence from which on its word is taken; what was taken is said


def encoding_of(path: Path) -> str:
    """The encoding of a text file: UTF-8 wherever the bytes are, else what chardet finds; "" if nothing.

    Where most lines with letters beyond ASCII are UTF-8, the file is, and its other rows are counted as they are read.
    """
    with path.open("rb") as file:
        start = file.read(4)
    for bom, name in BOMS.items():
        if start.startswith(bom):
            return name
    position = first_other_byte(path)
    if position is None:
        return "utf-8"
    with path.open("rb") as file:
        file.seek(max(0, position - SAMPLE // 2))
        around = file.read(SAMPLE)
    lines = [line for line in around.split(b"\n") if not line.isascii()]
    foreign = [line for line in lines if not is_utf8(line)]
    return detected(b"\n".join(foreign)) if len(foreign) > len(lines) / 2 else "utf-8"


def is_utf8(data: bytes) -> bool:
    """Whether these bytes are UTF-8; the last character may be cut off."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def first_other_byte(path: Path) -> int | None:
    """Where the first byte stands that is not UTF-8; None where all are."""
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            try:
                decoder.decode(data)
            except UnicodeDecodeError as error:
                return position + error.start
            position += len(data)
    return None


def detected(data: bytes) -> str:
    """What chardet takes these bytes for, as a name that Python knows; "" where it is not sure."""
    import chardet

    guess = chardet.detect(data)
    if not guess["encoding"] or (guess["confidence"] or 0) < SURE:
        return ""
    try:
        return codecs.lookup(guess["encoding"]).name
    except LookupError:
        return ""
