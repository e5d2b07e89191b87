"""What programs would stumble over at an authorization server, any server, found from outside over HTTP.

`recordings` is what each program sends, `sending` makes requests of it, `wire` sends them. `server` looks at what every
client relies on, `walk` goes the way of one program, `resource` looks at a protected resource. `examination` puts them
together. Nothing here knows the rest of this server: only its guarded connections and its reader for JSON are used.
"""
