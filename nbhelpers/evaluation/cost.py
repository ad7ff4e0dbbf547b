"""What an evaluation costs: from a rate that was measured, or from one that was only counted."""

import time
from collections.abc import Mapping, Sequence

from nbhelpers.datasets import Referring
from nbhelpers.evaluation.reading import Question, Reader, one_thread
from nbhelpers.models import Models
from nbhelpers.segment import Settings

# Counted for Stable Diffusion 1.5 at 64 x 64 latents, in operations.
UNET, COMPLETION = 803e9, 107e9  # of one prompt at one timestep
VAE = 1117e9  # of one picture
PEAK = 790e12  # operations a second that an H200 was seen to reach in bf16
PER_PICTURE = 142_210 / 19_994  # RefCOCO's expressions over its pictures


def counted_rate(
    *,
    timesteps: int = 1,
    variants: int = 1,
    share: float = 0.4,
    peak: float = PEAK,
    per_picture: float = PER_PICTURE,
) -> float:
    """Expressions a second on one GPU, counted: nobody has run this.

    Args:
        timesteps: Looks at each prompt.
        variants: Different prompts of each expression.
        share: How much of the peak is reached; below 1 for all that isn't multiplication.
        peak: Operations a second.
        per_picture: Expressions that share one encoding of their picture.

    Example:
        >>> f"{counted_rate(share=1):.0f} {counted_rate():.0f} {counted_rate(variants=17):.1f}"
        '740 296 20.2'
    """
    operations = variants * timesteps * (UNET + COMPLETION) + VAE / per_picture
    return share * peak / operations


def measured_rate(
    models: Models, variants: Mapping[str, Settings], data: Referring, *, expressions: int = 4
) -> float:
    """Expressions a second of one process with one thread, on the CPU that this runs on.

    It is counted in the process's own seconds, which others on the machine don't lengthen much.

    Args:
        models: From `load_models`, on the CPU.
        variants: Settings by name.
        data: Where the expressions come from.
        expressions: How many to time, after one that warms up.
    """
    reader = Reader(models, variants)
    some = sorted(data.expressions, key=lambda e: (e.image_id, e.id))[: expressions + 1]
    pictures = {e.image_id: data.image(e.image_id) for e in some}
    questions = [Question(pictures[e.image_id], e.text) for e in some]
    with one_thread():
        reader.maps(questions[:1])
        started = time.process_time()
        for question in questions[1:]:
            reader.maps([question])
        return (len(questions) - 1) / (time.process_time() - started)


def hours(
    expressions: int, rate: float, workers: Sequence[int] = (1, 8, 64), *, start: float = 60
) -> dict[int, float]:
    """Hours until the last expression is done, by how many GPUs or processes share them.

    Args:
        expressions: How many.
        rate: Of each worker, a second.
        workers: How many of them.
        start: Seconds until a worker has loaded its model.

    Example:
        >>> hours(120_000, 100, (1, 8), start=0)
        {1: 0.3333333333333333, 8: 0.041666666666666664}
    """
    return {n: (start + -(-expressions // n) / rate) / 3600 for n in workers}
