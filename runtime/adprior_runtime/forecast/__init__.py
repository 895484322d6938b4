"""From beams to a forecast of advertisers."""
