"""From the folders of finished runs to tables: runs collected and grouped, the studies, Markdown, LaTeX and CSV."""
