"""DTR's HTTP API, ``/api/v0``, and that of its account service, ``/enzi/v0``."""
