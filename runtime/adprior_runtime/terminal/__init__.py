"""Parts of commands in a terminal: types of options, tables, progress bars."""
