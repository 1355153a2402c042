"""How Sphinx builds these pages."""  # noqa: INP001 - not a package

project = "dtr"
author = "the authors of dtr"
copyright = "the authors of dtr, Apache-2.0"  # noqa: A001 - Sphinx's name for it
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "A trusted registry for container images",
    "fixed_sidebar": True,
    "page_width": "1100px",
    "sidebar_width": "240px",
}
html_copy_source = False
