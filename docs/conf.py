"""Settings of the documentation's site: `sphinx-build -W docs build/docs` makes it, from these pages and the docstrings."""

import os

from sim.version import __version__

project = "moesim"
release = version = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc"]
default_role = "code"
html_theme = "furo"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"moesim {release}"
myst_heading_anchors = 2
nb_execution_mode = "force"  # notebooks hold no outputs: each build runs them
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_output_stderr = "remove"  # of the browser that draws; what a cell raises fails the build
os.environ.setdefault("PLOTLY_RENDERER", "svg")  # plotly's pages would fetch a script from elsewhere
exclude_patterns = ["*.svg"]
suppress_warnings = ["misc.highlighting_failure"]  # `moesim ... > file` is no console session of pygments
numpydoc_show_class_members = False
autodoc_typehints = "none"  # the types stand in the parameters of each docstring
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
