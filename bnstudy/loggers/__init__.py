"""Where metrics can go besides the store: one class a logger, one YAML file in conf/logger."""
