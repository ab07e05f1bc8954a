"""Normalizations: the base classes in `base.py`, then one file per family."""
