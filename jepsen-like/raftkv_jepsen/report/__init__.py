"""The report: figures of a history, plots as inline SVG, one page without anything from elsewhere."""
