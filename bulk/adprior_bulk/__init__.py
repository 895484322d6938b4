"""Daily forecasts for every active user, on Ray, and their publication in Redis."""
