"""What things cost; `scripts/benchmark.py` is the command."""
