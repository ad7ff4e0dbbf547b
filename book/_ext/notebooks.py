"""Each page that runs downloads as a notebook too: a student's, of plain Markdown, unrun.

The package's wheel, which a notebook's first cell installs, downloads from every page, where
`make book` has built it.

Where NBHELPERS_NOTEBOOKS names a folder on GitHub that holds these notebooks, each such page has
buttons that open its own in Colab and in Binder.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import nbformat

sys.path.append(str(Path(__file__).parents[2]))  # the engine is started in any folder

from book.tools.notebooks import is_notebook, student_notebook

FOLDER = re.compile(r"https://github\.com/([^/]+/[^/]+)/tree/([^/]+)(/.+?)?/*")
COLAB = "https://colab.research.google.com/github/{repository}/blob/{branch}/{path}"
BINDER = "https://mybinder.org/v2/gh/{repository}/{branch}?urlpath=lab/tree/{path}"
ICON = "fas fa-rocket"


def wheels(app):
    """The package's wheel, if it was built: one file or none."""
    return sorted(Path(app.srcdir, "_build", "wheel").glob("*.whl"))


def offer(app, pagename, templatename, context, doctree):
    """Tell the theme's download button of the notebook, where the page is one."""
    source = Path(app.srcdir, f"{pagename}.md")
    if source.is_file() and is_notebook(source):
        context["ipynb_source"] = f"{pagename}.ipynb"


def offer_wheel(app, pagename, templatename, context, doctree):
    """Add the package to what downloads from a page."""
    for group in context["header_buttons"]:
        if group["label"] == "download-buttons":
            group["buttons"] += [
                {
                    "type": "link",
                    "url": context["pathto"](wheel.name, 1),
                    "text": ".whl",
                    "tooltip": "Download the package, which notebooks install",
                    "icon": "fas fa-box",
                    "label": "download-package-button",
                }
                for wheel in wheels(app)
            ]


def launchers(folder, page):
    """The addresses that open a page's notebook, by what opens it.

    Colab and Binder read from GitHub alone, so the folder is an address there, as a browser shows
    it; a branch whose name has a slash can't be told from a folder.
    """
    found = FOLDER.fullmatch(folder)
    if found is None:
        raise ValueError(
            "NBHELPERS_NOTEBOOKS is a folder on GitHub, "
            f"https://github.com/OWNER/NAME/tree/BRANCH/FOLDER; got {folder!r}"
        )
    repository, branch, inside = found.groups(default="")
    parts = {"repository": repository, "branch": branch, "path": f"{inside}/{page}.ipynb"[1:]}
    return {"Colab": COLAB.format(**parts), "Binder": BINDER.format(**parts)}


def launch(app, pagename, templatename, context, doctree):
    """Add the buttons, where the page is a notebook that lies on GitHub."""
    folder = os.environ.get("NBHELPERS_NOTEBOOKS")
    if not folder or "ipynb_source" not in context:
        return
    buttons = [
        {"type": "link", "text": name, "tooltip": f"Open in {name}", "url": url, "icon": ICON}
        for name, url in launchers(folder, pagename).items()
    ]
    group = {"type": "group", "tooltip": "Run this page", "icon": ICON, "label": "launch-buttons"}
    context["header_buttons"].append({**group, "buttons": buttons})


def write(app, error):
    """Write the notebooks and the wheel to where the buttons look for them."""
    if error is not None or app.builder.name != "html":
        return
    for wheel in wheels(app):
        shutil.copy(wheel, app.outdir)
    for page in sorted(app.env.found_docs):
        source = Path(app.srcdir, f"{page}.md")
        if source.is_file() and is_notebook(source):
            nbformat.write(student_notebook(source), Path(app.outdir, "_sources", f"{page}.ipynb"))


def setup(app):
    app.connect("html-page-context", offer, priority=400)  # before the theme makes its buttons
    app.connect("html-page-context", offer_wheel, priority=600)  # after it
    app.connect("html-page-context", launch, priority=600)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
