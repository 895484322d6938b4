"""The advertiser catalogue: read, checked, compiled to a trie."""
