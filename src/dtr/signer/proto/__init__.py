"""
What goes over the wire: `signer.proto`, and what the compiler of protocol buffers makes of it.

`make protocol` makes `signer_pb2.py` and `signer_pb2.pyi` anew after a change.
"""
