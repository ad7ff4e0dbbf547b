"""How a check works: a function is called on fresh inputs, and its answers are compared.

A check reads what a function returns, never what it prints, and it draws its inputs anew each
time, so that nothing but a function that works passes it. It knows the usual mistakes by what
they give, and says which of them it sees.
"""

import copy
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor


class Wrong(AssertionError):
    """An answer that isn't right yet: what differs, and a hint."""

    def _render_traceback_(self) -> list[str]:
        """Returns what a notebook shows: the words alone, no way through the check's own code."""
        return [str(self)]


@dataclass(frozen=True)
class Round:
    """One set of inputs that a function is tried on.

    Attributes:
        function: The student's.
        rng: What the inputs are drawn with.
        seed: Of `rng`; giving it to the check draws the same inputs again.
    """

    function: Callable[..., Any]
    rng: torch.Generator
    seed: int

    @property
    def name(self) -> str:
        """The function's."""
        return getattr(self.function, "__name__", "the function")

    def ask(self, *given: Any) -> Any:
        """Returns what the function answers; it gets copies and has to leave them as they are.

        Raises:
            Wrong: It isn't written yet, gave nothing, or changed its inputs.
        """
        copies = copy.deepcopy(given)
        try:
            answer = self.function(*copies)
        except NotImplementedError:
            raise Wrong(f"{self.name} isn't written yet: put your code in its place") from None
        if answer is None:
            self.refuse("it returned None", "end with `return`; what is printed isn't read")
        for index, (before, after) in enumerate(zip(given, copies, strict=True)):
            if _changed(before, after):
                self.refuse(
                    f"it changed its input number {index + 1}",
                    "work on a copy: x.clone() for a tensor, list(x) for a list",
                )
        return answer

    def compare(
        self, got: Any, wanted: Any, mistakes: Mapping[str, Any] | None = None, hint: str = ""
    ) -> None:
        """Lets an answer pass, or says what differs.

        Args:
            got: The function's answer.
            wanted: The right one.
            mistakes: What the usual mistakes give, each by its hint.
            hint: For a mistake that isn't among them.

        Raises:
            Wrong: They differ.
        """
        if (difference := _difference(got, wanted)) is None:
            return
        seen = [words for words, value in (mistakes or {}).items() if _same(got, value)]
        self.refuse(difference, "; or: ".join(seen) or hint)  # by chance two give the same

    def refuse(self, difference: str, hint: str) -> NoReturn:
        """Raises `Wrong` with what differs and a hint."""
        told = f"{self.name} isn't right yet (inputs of seed {self.seed}): {difference}."
        raise Wrong(f"{told}\nHint: {hint}." if hint else told) from None


def rounds(function: Callable[..., Any], seed: int | None, count: int = 4) -> Iterator[Round]:
    """Yields rounds of fresh inputs; says that all is right when the last one is passed.

    Args:
        function: The student's.
        seed: Of the first round, to see a failure again; another one each time when None.
        count: How many.
    """
    first = secrets.randbelow(10**6) if seed is None else seed
    for number in range(first, first + count):
        yield Round(function, torch.Generator().manual_seed(number), number)
    name = getattr(function, "__name__", "the function")
    print(f"{name} is right on {count} inputs drawn just now.")


def _changed(before: Any, after: Any) -> bool:
    """Tells whether an input was written to."""
    if isinstance(before, list):
        return len(before) != len(after) or any(map(_changed, before, after))
    if isinstance(before, Tensor | np.ndarray):
        return not _same(after, before)
    return isinstance(before, int | float | str | tuple) and bool(before != after)


def _plain(value: Any) -> np.ndarray:
    """Returns an answer as an array, whatever it came as."""
    if isinstance(value, Tensor):
        value = value.float() if value.dtype == torch.bfloat16 else value  # NumPy has none
        value = value.numpy(force=True)
    value = np.asarray(value)
    return value.astype(np.float64) if value.dtype.kind in "iuf" else value


def _rounding(value: Any) -> float:
    """Returns a tensor's relative rounding; embeddings on a GPU are in half precision."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.finfo(value.dtype).eps
    return 0.0


def _same(got: Any, wanted: Any) -> bool:
    """Tells whether two answers agree but for rounding."""
    return _difference(got, wanted) is None


def _difference(got: Any, wanted: Any) -> str | None:
    """Returns what differs, in words; None where nothing does."""
    try:
        ours, right = _plain(got), _plain(wanted)
    except (TypeError, ValueError):  # a ragged list, a tensor that is on no device
        return f"it gave {str(got)[:60]!r}, which is no array of numbers"
    if ours.shape != right.shape:
        return f"it gave the shape {ours.shape}, wanted is {right.shape}"
    if ours.dtype.kind != right.dtype.kind:
        return f"it gave values of type {ours.dtype}, wanted are {right.dtype}"
    if right.dtype.kind != "f":
        wrong = ours != right
    elif not np.isfinite(ours).all():
        return "it gave NaN or infinity"
    else:
        largest = max(float(np.abs(right).max(initial=0)), 1e-6)
        wrong = np.abs(ours - right) > max(1e-4, 4 * _rounding(wanted)) * largest
    if not wrong.any():
        return None
    if not right.shape:
        return f"it gave {ours.item()}, wanted is {right.item()}"
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    shown = index if len(index) > 1 else index[0]
    return (
        f"{np.count_nonzero(wrong)} of {wrong.size} values differ, the first at {shown}: "
        f"it gave {ours[index]}, wanted is {right[index]}"
    )
