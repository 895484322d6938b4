"""From a checkpoint to a TensorRT-LLM engine, with NVIDIA's own tools inside their container."""
