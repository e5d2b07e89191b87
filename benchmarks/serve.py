"""serve.py PORT [NAME=VALUE …] [+PLUGIN …]: `pserve` with production.ini, whose settings of these names have other values.

    serve.py 6543                           as it is shipped
    serve.py 6543 processes=4 threads=4
    serve.py 6543 +dpop                     with the plugin dpop, too
    serve.py 6543 plain                     by plain http, without a proxy: for load generators that send no such headers

The database is that of the variable DATABASE_URL, and what the server writes goes to stderr.
"""

import os
import sys
from pathlib import Path
from tempfile import mkdtemp

from settings import environment, write_ini


def main() -> None:
    port, *settings = sys.argv[1:]
    plugins = [item[1:] for item in settings if item.startswith("+")]
    changes = dict(item.split("=", 1) for item in settings if "=" in item)
    variables = environment(os.environ["DATABASE_URL"])
    if "plain" in settings:
        variables["AUTHSERVER_ISSUER"] = f"http://127.0.0.1:{port}"
        changes["authserver.environment"] = "development"
    ini = write_ini(Path(mkdtemp(prefix="authserver-benchmark-")), changes, plugins)
    # Beside this Python, which need not be the first in PATH.
    pserve = Path(sys.executable).with_name("pserve")
    addresses = [f"http_port={port}", f"management_address=127.0.0.1:{int(port) + 100}"]
    os.execve(pserve, [str(pserve), str(ini), *addresses], {**os.environ, **variables})


if __name__ == "__main__":
    main()
