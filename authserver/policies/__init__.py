"""The shipped policies: plugins like anyone's, importing `authserver.api` alone."""
