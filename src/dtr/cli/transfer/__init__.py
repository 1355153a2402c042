"""
Moving accounts from one registry to another: from files or a running DTR into this registry, and out of it.

Whatever is read becomes `Content`; what is there and what is wanted give the `changes`. So a dry run is the same
without its last step, and a second run finds nothing to do.
"""
