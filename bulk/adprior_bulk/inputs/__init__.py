"""Events and profiles of all users, split into shards, each user assembled."""
