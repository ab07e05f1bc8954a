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


def test_a_closed_terminal_stops_unless_sighup_is_ignored():
    for ignored in (True, False):
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        flag = StopFlag("")
        with flag.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert (flag.signum is None) is ignored


def test_ctrl_c_stops_even_if_the_shell_ignores_it_for_a_background_command():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    flag = StopFlag("")
    with flag.listening():
        os.kill(os.getpid(), signal.SIGINT)
    assert flag.signum == signal.SIGINT
