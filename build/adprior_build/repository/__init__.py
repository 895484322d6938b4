"""Makes bundles and model repositories."""
