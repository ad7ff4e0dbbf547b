"""One kind of label for a work, in the text and in the list: its authors and its year."""

from collections import Counter

from pybtex.plugin import register_plugin
from pybtex.style.formatting.alpha import Style
from pybtex.style.labels import BaseLabelStyle


def label(entry):
    """The authors' last names and the year: "Radford et al., 2021"."""
    names = [" ".join(person.last_names).strip("{}") for person in entry.persons["author"]]
    who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
    return f"{who}, {entry.fields['year']}"


class AuthorYear(BaseLabelStyle):
    """Labels of a list of works; those of one year and the same authors get letters."""

    def format_labels(self, sorted_entries):
        counts, seen = Counter(map(label, sorted_entries)), Counter()
        for entry in sorted_entries:
            name = label(entry)
            seen[name] += 1
            yield name + (chr(ord("a") + seen[name] - 1) if counts[name] > 1 else "")


class List(Style):
    """The list of references, sorted by author, with such labels."""

    default_label_style = "author_year"


def setup(app):
    register_plugin("pybtex.style.labels", "author_year", AuthorYear)
    register_plugin("pybtex.style.formatting", "author_year", List)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
