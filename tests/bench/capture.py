"""One pass of the UNet with the attention captured: our way, and the ways of others."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from nbhelpers import kernels
from nbhelpers.attention import Recording, record_attention
from nbhelpers.benchmarks import Row, pick
from nbhelpers.calibration import RESOLUTION_WEIGHTS
from nbhelpers.completion import complete
from nbhelpers.scores import score_maps
from nbhelpers.tokens import Spans
from tests.bench.baselines import KEEPS, complete_stored, storing, word_map
from tests.bench.measure import Way, agree, interleave, largest
from tests.bench.operators import Tell, off_range
from tests.bench.records import rows_of, target

TOKEN, TOKENS = 5, 77  # the noun's position among the tokens
PLAIN, CAPTURE, OURS, SPREAD = "plain", "capture", "capture + A S", "capture + A^T S"
DAAM, MEANS, ALL = "DAAM's map", "head means + A S", "all heads + A S"
ON_CPU, GRAPH = "all heads on the CPU + A S", "capture as a CUDA graph + A S"


class Pass:
    """One pass of a UNet over a batch of random latents, in each of the ways.

    Attributes:
        held_mb: What one item's recorded queries and keys took, in MB of 10^6 bytes.
    """

    held_mb: float | None = None

    def __init__(self, unet: nn.Module, batch: int, latent: tuple[int, int]) -> None:
        generator = torch.Generator().manual_seed(batch)
        like = next(unet.parameters())

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(like)

        self.unet, self.latent = unet, draw(batch, unet.config.in_channels, *latent)
        self.text = draw(batch, TOKENS, unet.config.cross_attention_dim)
        self.timesteps = torch.full((batch,), 100, device=like.device)

    def plain(self) -> Tensor:
        """What the UNet says."""
        said: Tensor = self.unet(
            self.latent, self.timesteps, encoder_hidden_states=self.text
        ).sample
        return said

    def capture(self) -> Tensor:
        """The same, with queries and keys recorded."""
        with record_attention(self.unet):
            return self.plain()

    def record(self) -> Recording:
        """The pass's queries and keys."""
        with record_attention(self.unet) as attention:
            self.plain()
        return attention

    def ours(
        self, transpose: bool = False, record: Callable[[], Recording] | None = None
    ) -> Tensor:
        """The completed map of every item of the batch: ``batch n``."""
        attention = (record or self.record)()
        kept = [tensor for layer in attention.layers for tensor in (layer.query, layer.key)]
        self.held_mb = sum(x.numel() * x.element_size() for x in kept) / len(self.latent) / 1e6
        count = len(self.latent)
        spans = Spans(((TOKEN,),), ((TOKEN,),), (TOKEN,), TOKEN + 1)
        scores = []
        for i in range(count):
            cross = [layer.part(i, count) for layer in attention.cross_layers]
            scores.append(score_maps(cross, spans, weights=RESOLUTION_WEIGHTS))
        maps = complete(torch.stack(scores), attention.self_layers, transpose=transpose)
        return maps[:, 0].flatten(1)

    def theirs(self, keep: str, transpose: bool = False) -> Tensor:
        """The same from stored probabilities."""
        with storing(self.unet, KEEPS[keep]) as store:
            self.plain()
        grid = (self.latent.shape[-2], self.latent.shape[-1])
        maps = complete_stored(store, TOKEN, grid, RESOLUTION_WEIGHTS, transpose)
        return maps.to(self.latent.device)

    def daam(self) -> Tensor:
        """DAAM's map of the token: cross-attention alone, nothing completed."""
        with storing(self.unet, KEEPS["all heads"], "cross") as store:
            self.plain()
        return word_map(store, TOKEN, (self.latent.shape[-2], self.latent.shape[-1]))

    def daam_of_recorded(self) -> Tensor:
        """The same map from recorded queries and keys."""
        store = {}
        for layer in self.record().cross_layers:
            column = kernels.columns(layer.query, layer.key, [TOKEN], layer.scale)
            store[layer.name] = column
        return word_map(store, 0, (self.latent.shape[-2], self.latent.shape[-1]))

    def ways(self, peers: bool) -> list[Way]:
        """Plain first; then ours; then, where asked for, the others'."""
        ways = [
            Way(PLAIN, self.plain),
            Way(CAPTURE, self.capture),
            Way(OURS, self.ours),
        ]
        if not peers:
            return ways
        ways += [
            Way(SPREAD, lambda: self.ours(transpose=True)),
            Way(DAAM, self.daam),
            Way(MEANS, lambda: self.theirs("head means")),
            Way(ALL, lambda: self.theirs("all heads")),
        ]
        if self.latent.device.type == "cuda":
            ways.append(Way(ON_CPU, lambda: self.theirs("all heads, on the CPU")))
            graph = Graphed(self.record)
            ways.append(Way(GRAPH, lambda: self.ours(record=graph)))
        return ways


class Graphed:
    """A function of no arguments, captured as one CUDA graph on its first call, then replayed.

    What it returned the first time holds the same tensors ever after, with new values. It must not
    look at a value on the way, as score maps and completion do, which refuse NaN.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.graph: Any = None

    def __call__(self) -> Any:
        if self.graph is None:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # compiled and allocated before it is captured
                for _ in range(3):
                    self.function()
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.result = self.function()
        self.graph.replay()
        return self.result


@torch.no_grad()
def bench_capture(
    unet: nn.Module,
    *,
    batches: Sequence[int] = (1, 2),
    latent: tuple[int, int] = (64, 64),
    rounds: int = 3,
    tell: Tell = lambda name: None,
) -> tuple[list[Row], list[Row]]:
    """Capture and completion over a plain pass, by batch; the others' ways at the first batch.

    All ways are compared before any is timed, on a CPU with a latent of half the size.

    Args:
        unet: Whose pass it is.
        batches: Sizes of the batch. On a GPU the others' ways are measured at each.
        latent: ``(h, w)``.
        rounds: How often each way runs.
        tell: Is told each way before it runs.

    Returns:
        Rows, and the targets' rows.

    Raises:
        ValueError: A way's map differs from another's, or capturing changed the UNet's output.
    """
    device = next(unet.parameters()).device
    cuda = device.type == "cuda"
    rows: list[Row] = []
    held = None
    # Half as large on a CPU, where a pass takes ten seconds and more.
    sides = latent if cuda else (latent[0] // 2, latent[1] // 2)
    small = Pass(unet, batches[0], sides)
    differences = check(small, small.ways(peers=True), tell)
    for batch in batches:
        one = Pass(unet, batch, latent)
        ways = one.ways(peers=cuda or batch == batches[0])
        found = interleave(ways, device, rounds=rounds, warm=3 * cuda, tell=tell)
        rows += rows_of(found, {"batch": batch}, differences)
        held = one.held_mb and round(one.held_mb, 1)
        pick(rows, OURS, batch=batch)["held_mb"] = held
    for row in rows if cuda else ():
        if row["batch"] == batches[0] and row["way"] not in (GRAPH, ON_CPU):
            tell(f"{row['way']}, largest batch")
            row["largest_batch"] = largest(_run_of(unet, latent, row["way"]), 512)
    return rows, _targets(rows, batches, held, cuda)


def check(one: Pass, ways: Sequence[Way], tell: Tell) -> dict[str, float]:
    """The UNet's output under capture is the plain one's, and each way's map is ours.

    DAAM's map and that of A^T S are each set against another way to them, which isn't timed.

    Returns:
        How far each map is from the other, as a share of its range.
    """
    limit = 1e-3 if one.latent.dtype == torch.float32 else 0.1
    tell("equality")
    if not torch.equal(one.plain(), one.capture()):
        raise ValueError("capturing changed what the UNet says; nothing was timed")
    same = [way for way in ways if way.name not in (PLAIN, CAPTURE, SPREAD, DAAM, GRAPH)]
    found = agree(same, off_range, limit, tell)
    for way in ways:
        if way.name == GRAPH:
            with suppress(RuntimeError):  # a pass that can't be captured is noted when it is timed
                found |= agree([same[0], way], off_range, limit, tell)
    others = {DAAM: one.daam_of_recorded, SPREAD: lambda: one.theirs("all heads", transpose=True)}
    for way in ways:
        if way.name in others:
            pair = [Way("another way", others[way.name]), way]
            found[way.name] = agree(pair, off_range, limit, tell)[way.name]
    return {CAPTURE: 0.0, **found}


def _run_of(unet: nn.Module, latent: tuple[int, int], name: str) -> Callable[[int], Any]:
    """A way's run by the size of the batch."""

    def run(batch: int) -> None:
        for way in Pass(unet, batch, latent).ways(peers=True):
            if way.name == name:
                way.run()

    return run


def _targets(rows: list[Row], batches: Sequence[int], held: float | None, cuda: bool) -> list[Row]:
    """What was promised. On a GPU at the largest batch from 8 on, where it isn't launch-bound."""
    first, last = batches[0], max(batches)

    def ratio(way: str, batch: int) -> float | None:
        found: float | None = pick(rows, way, batch=batch)["ratio"]
        return found

    if cuda:
        mb = target("held for one sample", held, at_most=30, unit="MB")
        return [
            target(f"capture over plain, batch {last}", ratio(CAPTURE, last), at_most=1.02),
            target(f"capture + completion over plain, batch {last}", ratio(OURS, last),
                   at_most=1.15),
            mb,
        ]  # fmt: skip
    theirs, ours = ratio(ALL, first), ratio(OURS, first)
    peaks = {name: pick(rows, name, batch=first)["peak_mib"] for name in (PLAIN, OURS, ALL)}
    share = None
    if None not in peaks.values():
        share = (peaks[OURS] - peaks[PLAIN]) / (peaks[ALL] - peaks[PLAIN])
    times = theirs / ours if theirs and ours else None
    return [
        target("capture over plain", ratio(CAPTURE, first), at_most=1.10),
        target("capture + completion over plain", ours, at_most=1.25),
        target("all heads + completion, times ours", times, at_least=1.5),
        target("our extra peak over that of all heads", share, at_most=0.05),
    ]
