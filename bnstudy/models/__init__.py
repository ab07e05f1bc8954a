"""Networks: the base class in `base.py`, then one file per family; `layers.py` holds their parts."""
