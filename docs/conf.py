"""How Sphinx builds the documents: ``python -m sphinx -W -b html docs docs/_build``."""

from importlib.metadata import version as version_of

project = "fastnet"
author = "The fastnet developers"
version = release = version_of("fastnet")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"fastnet {version}"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# Links to files of the repository that are no documents; tests/test_documents.py looks whether they exist.
suppress_warnings = ["myst.xref_missing"]

autodoc_default_options = {"members": True, "inherited-members": False}
autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # The docstrings say the types.
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
