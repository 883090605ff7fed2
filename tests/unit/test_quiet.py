"""Known messages of libraries are muted by their text, and nothing else."""

import logging
import warnings

from helpers.machine.quiet import KNOWN, collected, quiet


def test_a_known_warning_is_muted_and_another_one_is_not():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        quiet()
        warnings.warn("`gradient_checkpointing_kwargs` is deprecated and will be removed", FutureWarning, stacklevel=1)
        warnings.warn("`learning_rate` is deprecated and will be removed", FutureWarning, stacklevel=1)
    assert [str(one.message)[:15] for one in heard] == ["`learning_rate`"]


def test_a_known_line_of_a_log_is_muted_and_another_one_is_not(caplog):
    quiet()
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.warning("Failed to load CPU gemm_4bit_forward from %s", "somewhere")
    log.warning("Failed to load something else")
    assert [record.getMessage() for record in caplog.records] == ["Failed to load something else"]


def test_every_known_message_has_its_reason():
    assert all(len(known.why) > 10 and len(known.text) > 20 for known in KNOWN)


def test_what_a_library_logs_can_be_shown_as_text(capsys):
    with collected("somebodys.library") as lines:
        logging.getLogger("somebodys.library").warning("%d layers", 3)
    assert lines == ["3 layers"] and capsys.readouterr().err == "" and logging.getLogger("somebodys.library").propagate
