"""Fine-tuning a causal language model to name the next advertiser."""
