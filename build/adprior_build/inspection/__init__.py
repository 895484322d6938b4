"""Describes a log that nobody has seen: columns, a column map, a split, the cost of training."""
