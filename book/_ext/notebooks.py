"""Each chapter downloads as a Jupyter notebook too, with no outputs, beside its source."""

from pathlib import Path

import jupytext


def offer(app, pagename, templatename, context, doctree):
    """Tell the theme's download button of the notebook, where the page is one."""
    source = Path(app.srcdir, f"{pagename}.md")
    if source.is_file() and "kernelspec:" in source.read_text("utf-8")[:400]:
        context["ipynb_source"] = f"{pagename}.ipynb"


def write(app, error):
    """Write the notebooks to where the button looks for them."""
    if error is not None or app.builder.name != "html":
        return
    folder = Path(app.outdir, "_sources")
    for page in sorted(app.env.found_docs):
        source = Path(app.srcdir, f"{page}.md")
        if source.is_file() and "kernelspec:" in source.read_text("utf-8")[:400]:
            notebook = jupytext.read(source, fmt="md:myst")
            jupytext.write(notebook, folder / f"{page}.ipynb", fmt="ipynb")


def setup(app):
    app.connect("html-page-context", offer, priority=400)  # before the theme makes its buttons
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
