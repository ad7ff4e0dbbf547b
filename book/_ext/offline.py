"""Leaves out what no page needs: Thebe, which asks another host, and a second MathJax."""


def leave_out(app, pagename, templatename, context, doctree):
    """Drop scripts and styles that the engine adds to every page, some of them twice."""
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if is_needed(file)]


def is_needed(file):
    """Whether a page is worse off without a script or style.

    Thebe starts a kernel elsewhere, and its button isn't shown. MathJax is added where there is
    a formula, to be run when the page is read; the engine adds whatever lies in _static besides.
    """
    said = f"{getattr(file, 'filename', '')} {getattr(file, 'attributes', {}).get('body', '')}"
    is_second = "tex-svg.js" in said and "defer" not in file.attributes
    return "thebe" not in said.lower() and not is_second


def setup(app):
    app.connect("html-page-context", leave_out, priority=900)  # when all have added theirs
    return {"parallel_read_safe": True, "parallel_write_safe": True}
