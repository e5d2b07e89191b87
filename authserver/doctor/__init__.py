"""What programs would stumble over at an authorization server, any server, found from outside over HTTP.

`examination` puts it together: `resource` looks at a protected resource, `server` at what every client relies on, and
`walk` goes the way of one program, which is `discovery`, `introduction` and `authorization`. What a program sends is in
`recordings`, `sending` makes requests of it, and `wire` sends them. `findings` lists all checks. Nothing here knows the
rest of this server: only its guarded connections and its reader for JSON are used.
"""
