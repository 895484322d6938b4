"""``adprior bench quality``: what the forecast is worth, measured against what needs no model.

The data flows one way: `study` (who is learnt from, tuned and tested on) -> `baselines` and the
language model's forecasts -> metrics, retrieval and ranking -> the report.
"""
