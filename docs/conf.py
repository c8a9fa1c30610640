"""Settings of the documentation's site: `sphinx-build -W docs build/docs` makes it, from these pages and the docstrings."""

from sim.version import __version__

project = "moesim"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
default_role = "code"
html_theme = "furo"
html_title = f"moesim {release}"
myst_heading_anchors = 2
exclude_patterns = ["*.svg"]
suppress_warnings = ["misc.highlighting_failure"]  # `moesim ... > file` is no console session of pygments
numpydoc_show_class_members = False
autodoc_typehints = "none"  # the types stand in the parameters of each docstring
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
