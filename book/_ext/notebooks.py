"""Each page that runs downloads as a notebook too: a student's, of plain Markdown, unrun."""

from pathlib import Path

import nbformat

from nbhelpers.labs.notebooks import is_notebook, student_notebook


def offer(app, pagename, templatename, context, doctree):
    """Tell the theme's download button of the notebook, where the page is one."""
    source = Path(app.srcdir, f"{pagename}.md")
    if source.is_file() and is_notebook(source):
        context["ipynb_source"] = f"{pagename}.ipynb"


def write(app, error):
    """Write the notebooks to where the button looks for them."""
    if error is not None or app.builder.name != "html":
        return
    for page in sorted(app.env.found_docs):
        source = Path(app.srcdir, f"{page}.md")
        if source.is_file() and is_notebook(source):
            nbformat.write(student_notebook(source), Path(app.outdir, "_sources", f"{page}.ipynb"))


def setup(app):
    app.connect("html-page-context", offer, priority=400)  # before the theme makes its buttons
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
