"""The released code's data layout."""
