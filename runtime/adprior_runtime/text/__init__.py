"""Rules for texts, times and JSON that training, serving, bulk and clients share."""
