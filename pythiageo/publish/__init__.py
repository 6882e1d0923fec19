"""Publishing a run: what leaves the machine, and how it gets to the Hub."""

from pythiageo.publish.bundle import Bundle, write_bundle
from pythiageo.publish.upload import Pushed, push

__all__ = ["Bundle", "Pushed", "push", "write_bundle"]
