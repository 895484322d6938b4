"""Other systems that search the same model, for ``adprior bench search --peers``.

``worker.py`` and the three modules named after a system run in a Python of their own, which need
not have adprior.
"""
