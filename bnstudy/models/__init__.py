"""Networks: a spec in `base.py` says what a model is, then one file a family; `layers.py` holds their parts."""
