"""Engines: what runs the language model, each behind `adprior_runtime.engines.base.Engine`."""
