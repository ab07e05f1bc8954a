from __future__ import annotations

import os
import signal

import pytest

from bnstudy.sweep.signals import Interrupted, StopFlag


@pytest.fixture(autouse=True)
def signals_as_before():
    kept = {s: signal.getsignal(s) for s in (signal.SIGHUP, signal.SIGINT)}
    yield
    for s, handler in kept.items():
        signal.signal(s, handler)


def test_a_signal_sets_the_flag_and_handlers_are_restored(capfd):
    before = signal.getsignal(signal.SIGTERM)
    flag = StopFlag("Stopping.")
    with flag.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as stopped:
            flag.check()
    assert stopped.value.exit_status == 128 + signal.SIGTERM
    assert "Stopping." in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_exits_at_once():
    flag = StopFlag("")
    with flag.listening():
        os.kill(os.getpid(), signal.SIGUSR2)
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGUSR2)


@pytest.mark.parametrize(
    ("signum", "before", "stops"),
    [
        (signal.SIGHUP, signal.SIG_DFL, True),  # a closed terminal
        (signal.SIGHUP, signal.SIG_IGN, False),  # under nohup
        (signal.SIGINT, signal.default_int_handler, True),
        (signal.SIGINT, signal.SIG_IGN, False),  # of a script's background command
    ],
)
def test_a_signal_that_the_caller_ignores_stops_no_command(signum, before, stops):
    signal.signal(signum, before)
    flag = StopFlag("")
    with flag.listening():
        os.kill(os.getpid(), signum)
    assert (flag.signum is not None) is stops
