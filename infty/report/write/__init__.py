"""Reports as Markdown, LaTeX and HTML."""
