"""What a command shares with the shell that started it: the standard streams, and Ctrl-C until training handles it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

STOPPED = "Stopped."
LOSES_EXCEPTIONS = ("<frozen importlib", f"{os.sep}omegaconf{os.sep}")
"""Parts of file names: modules swallow what is raised while they are imported; OmegaConf fails while it restores its
flags, and Hydra takes that for a mistake in a configuration."""


def open_streams() -> None:
    """Open those of stdin, stdout and stderr that the caller has closed, without a reader.

    Otherwise the next file or pipe would get the number of such a stream, and what is printed to it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number: this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115


def flush_output() -> None:
    """Write out what was printed, and drop what a stream does not take, as on a full disk.

    Raises:
        OSError: stdout does not take all.
    """
    try:
        sys.stderr.flush()
    except OSError:
        drop(sys.stderr)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop(sys.stdout)
        raise OSError(f"The output cannot be written ({error.strerror})") from None


@contextmanager
def flushed_output() -> Iterator[None]:
    """Flush at the end, so that errors are raised here. Raises OSError as `flush_output`."""
    try:
        yield
    except SystemExit:
        flush_output()
        raise
    flush_output()


def drop(stream: TextIO) -> None:
    """Send what is still printed to the stream nowhere: Python would fail again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def interruptible(program: str) -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt, but end the process where the exception would be lost (`LOSES_EXCEPTIONS`).

    A SIGINT that the caller ignores stays ignored.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        while frame is not None:
            if any(place in frame.f_code.co_filename for place in LOSES_EXCEPTIONS):
                with suppress(OSError):
                    erase = "\r\x1b[K" if os.isatty(2) else ""  # what the command was doing
                    os.write(2, f"{erase}{program}: {STOPPED}\n".encode())
                os._exit(128 + signum)
            frame = frame.f_back
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def is_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused the error: code that it interrupts may fail while it cleans up."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or is_interrupted(error.__context__))
