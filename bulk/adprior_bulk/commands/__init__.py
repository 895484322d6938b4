"""Subcommands of ``adprior``, one module each, named as the subcommand."""
