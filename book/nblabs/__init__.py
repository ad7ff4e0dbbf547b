"""The checks of the labs that end the chapters: each tries a student's function and teaches.

They are plain functions, shared by notebooks, pytest and graders: a check returns when the answer
is right, and else raises `Wrong` with what differs and a hint.
"""

from nblabs.attention import check_add_up, check_listen, check_over_words
from nblabs.captions import check_best_sentence, check_log_probability
from nblabs.checking import Wrong
from nblabs.chunks import check_positions, check_whole_phrase
from nblabs.completion import check_gather, check_in_blocks, check_walk
from nblabs.denoising import check_clean, check_timestep_for
from nblabs.embeddings import check_leaks_into, check_replace, check_sees
from nblabs.evaluation import check_interval, check_report, check_two_means
from nblabs.family import check_merge, check_neglect
from nblabs.leaks import check_holm, check_worth
from nblabs.whole_way import check_cut, check_overlap

__all__ = ["check_cut", "check_overlap", "check_log_probability", "check_best_sentence"]
__all__ += ["check_positions", "check_whole_phrase", "check_replace", "check_leaks_into"]
__all__ += ["check_sees", "check_clean", "check_timestep_for", "check_over_words"]
__all__ += ["check_add_up", "check_listen"]
__all__ += ["check_gather", "check_in_blocks", "check_walk", "check_two_means", "check_report"]
__all__ += ["check_interval", "check_worth", "check_holm"]
__all__ += ["check_neglect", "check_merge", "Wrong"]
