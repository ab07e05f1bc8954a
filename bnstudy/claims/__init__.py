"""Claims: which runs answer them, by which numbers, with which verdict."""
