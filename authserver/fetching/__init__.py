"""Requests to other servers, the only ones that this server makes.

`Fetcher` is for URLs that strangers may name: only public addresses, bounded in time, size and number. `Service` is
for a URL that the operator names, which may be inside the operator's network. Both use the same connections.
"""
