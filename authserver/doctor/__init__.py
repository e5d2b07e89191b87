"""Finds the problems that real programs would have with an authorization server; any server, from outside, over HTTP.

`examination` runs the whole: `resource` examines a protected resource, `server` everything that each client relies on,
and `walk` makes the requests of one program (`discovery`, `introduction`, `authorization`). `recordings` has the
requests of the programs, `sending` fills them in, and `wire` sends them. `findings` lists all checks. The modules use
nothing of the rest of this server but its guarded connections and its reader for JSON.
"""
