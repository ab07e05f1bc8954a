"""Training: what a run's state is, and the engines that move it."""
