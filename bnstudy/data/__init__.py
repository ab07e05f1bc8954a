"""Datasets as tensors on the device. `base.py` says what a dataset is, `batches.py` what a step gets of it."""
