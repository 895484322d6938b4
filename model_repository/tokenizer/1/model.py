from adprior_runtime.triton.tokenizer import TritonPythonModel

__all__ = ["TritonPythonModel"]
