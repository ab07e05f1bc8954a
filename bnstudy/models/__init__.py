"""Networks. Each is a `ModelSpec` and an ordinary `nn.Module` of the layers in `layers.py`, whose names probes use."""
