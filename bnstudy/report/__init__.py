"""Reports: from verdicts and frames to pages, tables and figures. Never imports torch."""
