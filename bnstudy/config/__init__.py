"""From a composed Hydra config to runs and studies, and from what is wrong with it to one sentence."""
