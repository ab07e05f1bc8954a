"""Training: the loop, the two engines that make its steps, and what is recorded of a run."""
