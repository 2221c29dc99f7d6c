"""Votes and ratings: the store that keeps them, what goes in and out of it, and simulated listeners."""
