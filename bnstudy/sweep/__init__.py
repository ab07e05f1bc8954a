"""From a command line to trained runs: compose (points), plan (what is to do) and execute (train and store)."""

from bnstudy.calling import make_callable

make_callable(__name__)  # bnstudy.sweep(...)
