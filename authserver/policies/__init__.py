"""The shipped policies: plugins like any other; they import only `authserver.api`."""
