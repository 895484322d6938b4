"""Subcommands of ``adprior bench``, one module each, named as the subcommand."""
