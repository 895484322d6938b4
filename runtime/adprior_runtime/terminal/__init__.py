"""What every command shows in a terminal: options, tables, progress bars."""
