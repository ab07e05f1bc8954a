"""Normalizations: a spec in `base.py` says what a norm is, then one file a family."""
