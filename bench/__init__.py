"""Holds every engine to account: parity with the eager network, latency, and the record of both."""
