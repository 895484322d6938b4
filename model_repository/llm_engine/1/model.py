from adprior_runtime.triton.llm_engine import TritonPythonModel

__all__ = ["TritonPythonModel"]
