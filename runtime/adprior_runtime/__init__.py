"""What runs inside tritonserver, and the contract that every other package keeps to."""

__version__ = "0.1.0"
