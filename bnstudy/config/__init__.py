"""From command lines and composed Hydra configs to specs and requests, and from mistakes in them to one sentence."""
