"""Engines that run the language model; `adprior_runtime.engines.base.Engine` is the interface."""
