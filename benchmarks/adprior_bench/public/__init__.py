"""A public data set as an event log and a ranking log, so that anyone can run a report again."""
