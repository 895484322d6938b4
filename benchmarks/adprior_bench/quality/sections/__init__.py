"""The parts of the report, each from one part of the evaluation."""
