from adprior_runtime.triton.prior_head import TritonPythonModel

__all__ = ["TritonPythonModel"]
