"""``adprior bench quality``: forecasts compared with baselines that need no language model.

The data flows one way: `study` (training, validation and test users) -> `baselines` and the
language model's forecasts -> metrics, retrieval and ranking -> the report.
"""
