"""Datasets as tensors on the device. `base.py` has the base class, `batches.py` the batch of each step."""
