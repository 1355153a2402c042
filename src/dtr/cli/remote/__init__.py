"""
The command as a client: it asks a server that runs anywhere, over the public HTTP API, as the user who logged in.

What it imports beside click (the HTTP client, tables) is imported when it is used: the help does without.
"""
