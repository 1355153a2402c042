"""Policies: what is to happen with tags by itself."""
