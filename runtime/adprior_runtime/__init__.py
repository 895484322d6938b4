"""The code that runs inside tritonserver, and the contract that every package keeps."""

__version__ = "0.1.0"
