from adprior_runtime.triton.advertiser_decoder import TritonPythonModel

__all__ = ["TritonPythonModel"]
