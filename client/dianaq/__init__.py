"""The dianaq SDK, its command line, and the schemas that client, service and worker share."""

__version__ = "0.1.0"
