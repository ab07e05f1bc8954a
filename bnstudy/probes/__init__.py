"""Probes: measurements of one run's state. One file a family; a new one is one class, one YAML entry, one test."""
