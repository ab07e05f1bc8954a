"""The same from Python: `bnstudy.run`, `bnstudy.sweep`, `bnstudy.report` and `bnstudy.measure`."""
