"""Reports made of tables and plots, written as JSON, Markdown, HTML, PNG and text."""
