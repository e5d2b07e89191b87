"""How Sphinx builds the documentation: `make docs`."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "authserver"
author = "the authserver contributors"
release = version = version_of("authserver")

# `reference` is the file beside this one: it writes down what the code says of itself.
extensions = ["reference"]
exclude_patterns = ["_build"]
# Docstrings and help texts put code into single backticks.
default_role = "literal"
# Two hyphens begin an option.
smartquotes = False
highlight_language = "none"
nitpicky = True

html_theme = "furo"
html_title = "authserver"
html_show_copyright = False
html_copy_source = False
# For editors: what files of declarations can say.
html_extra_path = ["declarations.schema.json"]
html_theme_options = {"navigation_with_keys": True}
