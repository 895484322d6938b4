"""The advertisers: their names as a trie, their ids and popularity."""
