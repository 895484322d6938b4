"""Subcommands of ``adprior``: one module each, with the subcommand's name."""
