"""In which encoding a text file is written. Knows nothing of rows."""

import codecs
import re
from pathlib import Path

SAMPLE = 2**18  # bytes that are looked at to tell one encoding from another
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
CHUNK = 2**20
SURE = 0.5  # chardet's confidence from which on its word is taken; what was taken is said
LEAST, LEAD = 0.4, 1.3  # confidence that is enough where no other encoding comes near it
INSIDE = re.compile(r"(?<=[^\W\d_])[\x80-\xac\xae-\xb6\xb8-\xbf†‡‰™](?=[^\W\d_])")  # signs between letters
APART = (  # letters that no language of Central Europe has beside one another: Polish and others, Slovak and Czech
    ("ąęłśźżĄĘŁŚŹŻ", "ěřůčšžťďľđňĚŘŮČŠŽŤĎĽĐŇ"),
    ("ľĺŕĽĹŔ", "ěřůĚŘŮ"),
)
CONTROLS = re.compile(r"[\x80-\x9f]")
MOST_INSIDE = 0.1  # of the letters beyond ASCII


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
    """What chardet takes these bytes for, as a name that Python knows; "" where it is not sure, or the text odd."""
    import chardet

    best, *others = chardet.detect_all(data)
    known = best["encoding"], best["confidence"] or 0
    other = max((one["confidence"] or 0 for one in others if one["encoding"] != known[0]), default=0)
    if not known[0] or known[1] < LEAST or (known[1] < SURE and known[1] < LEAD * other):
        return ""
    try:
        name = codecs.lookup(known[0]).name
    except LookupError:
        return ""
    name = of_central_europe(data) if name == "cp1250" else name
    return "" if is_garbled(data.decode(name, errors="replace")) else name


def of_central_europe(data: bytes) -> str:
    """Windows-1250 or ISO 8859-2, whichever leaves fewer strange letters and signs; chardet takes both for the first.

    Their letters differ in a few places: š, ž, ą, ś and their like.
    """

    def strange(name: str) -> int:
        text = data.decode(name, errors="replace")
        mixed = sum(min(sum(map(text.count, letters)) for letters in sides) for sides in APART)
        return mixed + len(INSIDE.findall(text)) + len(CONTROLS.findall(text))

    return min(("cp1250", "iso8859-2"), key=strange)


def is_garbled(text: str) -> bool:
    """Whether signs that are no letters stand inside of words, as they do in a text read in a wrong encoding."""
    beyond = sum(not letter.isascii() for letter in text)
    return len(INSIDE.findall(text)) > MOST_INSIDE * beyond
