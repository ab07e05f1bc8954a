"""The files on disk: `runs.py` reads and writes the folders of runs and the plans of studies."""
