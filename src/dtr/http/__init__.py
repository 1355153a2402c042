"""The protocols that dtr speaks over HTTP: only translation; what things mean is known below."""
