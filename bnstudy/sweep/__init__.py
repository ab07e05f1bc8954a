"""From a command line to trained runs: compose (points), plan (what is to do) and execute (train and store)."""
