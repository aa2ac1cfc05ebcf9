"""The version, in one place: the package, the user agent and the manifest read it from here."""

__version__ = "0.1.0"
