"""The report of an evaluation: plain data (`schema`) made JSON, Markdown, HTML and PNG (`write`).

It knows tables and a few kinds of plots, and nothing of what is measured.
"""
