"""From a store to a report: frames are loaded, transformed, summarized, drawn. Nothing here imports torch."""
