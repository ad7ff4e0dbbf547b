"""The table of the pages' runs in words; many a machine has no glyph for the signs that it has."""

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

WORDS = {"✅": "ran", "❌": "failed"}


class InWords(SphinxPostTransform):
    """Writes how a run ended as a word."""

    default_priority = 9  # the table is made at 8

    def run(self, **kwargs):
        for text in list(self.document.findall(nodes.Text)):
            if text.astext() in WORDS:
                text.parent.replace(text, nodes.Text(WORDS[text.astext()]))


def setup(app):
    app.add_post_transform(InWords)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
