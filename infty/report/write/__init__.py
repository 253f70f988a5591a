"""Reports as Markdown, LaTeX, CSV and HTML."""
