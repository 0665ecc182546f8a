"""The conformance suite of the protocol, run against our server with the tools that it expects."""
