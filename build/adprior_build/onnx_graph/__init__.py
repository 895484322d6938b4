"""Writes a causal language model as the graph that `adprior_runtime.engines.onnx` runs."""
