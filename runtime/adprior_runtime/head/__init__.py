"""The prior head: features of candidates, and the ONNX graph that adjusts their logits."""
