"""The trie search, and the certificate that its forecast is exact."""
