"""The rules of `adprior_runtime.repository.checker`, one module for each kind of file."""
