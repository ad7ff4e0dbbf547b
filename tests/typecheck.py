"""The checker of the signatures in tests: beartype, for which an int is a float too."""

from beartype import BeartypeConf, beartype

outermost = beartype(conf=BeartypeConf(is_pep484_tower=True))
