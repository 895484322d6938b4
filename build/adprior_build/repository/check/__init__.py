"""``adprior build --check``: what is wrong with a model repository, in lines that say so.

`command` prints what `repository` finds. The rules are Triton's (`ensembles`), the contract's
(`configs`, `layout`), the manifest's (`bundles`), and TensorRT-LLM's (`engine`, `tensorrt_llm`).
"""
