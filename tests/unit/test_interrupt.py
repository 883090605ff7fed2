import os
import signal
import threading
from types import SimpleNamespace

import pytest

from helpers.train.interrupt import EvaluationStopped, StopGuard


def control():
    return SimpleNamespace(should_training_stop=False, should_save=False)


def press():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_interrupt_asks_for_a_stop_and_a_checkpoint(number):
    said, flags = [], control()
    with StopGuard(said.append) as guard:
        guard.on_step_end(None, None, flags)
        assert not flags.should_training_stop
        os.kill(os.getpid(), number)
        guard.on_substep_end(None, None, flags)
        guard.on_step_end(None, None, flags)
    assert flags.should_training_stop and flags.should_save and len(said) == 1


def test_the_second_interrupt_raises():
    with pytest.raises(KeyboardInterrupt), StopGuard():
        press()
        press()
        for _ in range(1000):  # a signal is delivered between two bytecodes
            pass


def test_the_old_handlers_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopGuard():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_an_evaluation_ends_in_its_middle():
    guard = StopGuard()
    guard.on_prediction_step(None, None, None)
    guard.ask()
    with pytest.raises(EvaluationStopped):
        guard.on_prediction_step(None, None, None)


def test_outside_of_the_main_thread_it_can_still_be_asked():
    errors, flags = [], control()

    def use():
        try:
            with StopGuard(lambda text: None) as guard:
                guard.ask()
                guard.on_step_end(None, None, flags)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not errors and flags.should_training_stop


def test_an_old_stop_does_not_stop_the_next_training():
    guard = StopGuard(lambda text: None)
    guard.ask()
    with guard:
        assert not guard.asked
