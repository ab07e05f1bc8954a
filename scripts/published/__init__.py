"""The published results: what is trained for them, and the files that are made of it. scripts/results.py runs it."""
