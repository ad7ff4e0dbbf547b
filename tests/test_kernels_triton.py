"""The operators in Triton: results on a GPU or under the interpreter, and machine code.

Without a GPU Triton's interpreter runs the kernels on the CPU, in float32 on small tensors: it
garbles products of bfloat16, and sees neither races nor spills. It must be asked for before
Triton is imported, so that a process of its own runs this file again.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import kernel_references as reference
import pytest
import torch
from kernel_references import attention, carry, compare, draw, naive, scores

from nbhelpers import kernels

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton isn't installed; it is made for Linux", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
runs = pytest.mark.skipif(
    not (GPU or INTERPRETED), reason="there is no GPU: run in the interpreter's own process"
)
on_gpu = pytest.mark.skipif(not GPU, reason="needs an NVIDIA GPU")
DTYPES = [torch.float32, torch.float16, torch.bfloat16] if GPU else [torch.float32]
# batch, heads, pixels, tokens, features
SHAPES = [(2, 2, 7 * 13, 77, 40), (1, 1, 1, 1, 8), (1, 2, 40, 24, 64), (1, 1, 33, 5, 80)]
SHAPES += [(1, 1, 20, 9, 160)]
if GPU:
    SHAPES += [(2, 8, 4096, 77, 40), (1, 5, 4096, 77, 64), (1, 8, 44 * 60, 77, 80)]
LOUD = 1.0  # the logits' rounding grows with them, and columns take their sum from outside


def run(environment, *arguments, timeout=280):
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.skipif(GPU or INTERPRETED, reason="the kernels run in this very process")
def test_under_the_interpreter():
    options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-k", "not compiled"]
    said = run({"TRITON_INTERPRET": "1"}, "-m", "pytest", __file__, *options)
    assert " passed" in said
    assert int(said.split(" passed")[0].split()[-1]) > 20


@runs
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_columns(shape, dtype):
    query, key = draw(*shape, loud=LOUD, dtype=dtype, device=DEVICE)
    scale = 1.3 * shape[-1] ** -0.5
    tokens = shape[3]
    index = sorted({0, tokens // 2, tokens - 1})
    wanted, plain = attention(query, key, scale), naive(query, key, scale)
    found = kernels.columns(query, key, index, scale, backend="triton")
    compare(found, wanted[..., index], plain[..., index])
    lse = kernels.row_lse(query, key, scale, backend="triton")
    right = (query.double() @ key.double().transpose(-1, -2) * scale).logsumexp(-1)
    assert (lse.double() - right).abs().max() < 1e-5 * right.abs().max() + 1e-6
    everything = kernels.columns(query, key, range(tokens), scale, backend="triton")
    compare(everything, wanted, plain)


@runs
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunks", [1, 3])
def test_complete(shape, chunks, dtype, transpose):
    batch, heads, n, _, d = shape
    query, key = draw(batch, heads, n, n, d, loud=LOUD, dtype=dtype, device=DEVICE)
    maps = scores(chunks, n, device=DEVICE)
    scale = 1.3 * d**-0.5
    wanted = carry(attention(query, key, scale), maps, transpose)
    plain = carry(naive(query, key, scale), maps.to(dtype), transpose)
    found = kernels.complete(query, key, maps, scale, transpose, backend="triton")
    compare(found, wanted, plain, summed=n)


@runs
@pytest.mark.parametrize("transpose", [False, True])
def test_prompts_groups_of_maps_and_strides(transpose):
    """Two prompts of two passes each, more maps than one pass over the keys takes."""
    query, key = draw(4, 2, 35, 35, 8, loud=LOUD, device=DEVICE)
    maps = scores(2, 18, 35, device=DEVICE)
    found = kernels.complete(query, key, maps, 0.4, transpose, backend="triton")
    for i in range(2):
        own = query[2 * i : 2 * i + 2], key[2 * i : 2 * i + 2]
        wanted = carry(attention(*own, 0.4), maps[i], transpose)
        compare(found[i], wanted, carry(naive(*own, 0.4), maps[i], transpose))
    wanted = attention(query, key, 0.4)[..., [3, 1]]
    plain = naive(query, key, 0.4)[..., [3, 1]]
    for axes in ((1, 2), (2, 3)):  # as the recorder gives them, and features apart
        strided = [x.transpose(*axes).contiguous().transpose(*axes) for x in (query, key)]
        assert not strided[0].is_contiguous()
        turned = maps.transpose(1, 2).contiguous().transpose(1, 2)
        again = kernels.complete(*strided, turned, 0.4, transpose, backend="triton")
        assert torch.equal(again, found)
        compare(kernels.columns(*strided, [3, 1], 0.4, backend="triton"), wanted, plain)


@runs
def test_loud_logits_stay_finite_and_rows_sum_to_1():
    query, key = draw(1, 2, 40, 40, 4, device=DEVICE)
    query, key = query * 60, key * 40
    assert (query @ key.transpose(-1, -2)).abs().max() > 1e4
    ones = torch.ones(1, 40, device=DEVICE)
    assert torch.allclose(
        kernels.complete(query, key, ones, 1.0, backend="triton"), ones, atol=1e-6
    )
    back = kernels.complete(query, key, ones, 1.0, transpose=True, backend="triton")
    assert back.sum().item() == pytest.approx(40, rel=1e-2)  # the lse of 1e4 is known to 1e-3
    total = kernels.columns(query, key, range(40), 1.0, backend="triton").sum(-1)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-2)


@runs
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("size", [(7, 5), (33, 20)])
def test_maps_of_several_resolutions_are_joined(size, normalize):
    grids = [(7, 5), (4, 3), (30, 20), (1, 2)]
    levels = [scores(2, *grid, seed=i, device=DEVICE) * 0.1 + i for i, grid in enumerate(grids)]
    levels.append(torch.full((2, 2, 2), 0.7, device=DEVICE))  # which tells nothing
    weights = [0.1, 0.5, 0.2, 0.1, 0.1]
    wanted = reference.blend([level.cpu() for level in levels], weights, size, normalize)
    found = kernels.aggregate(levels, weights, size, normalize=normalize, backend="triton").cpu()
    assert wanted.max() > 0.3
    assert (found.double() - wanted).abs().max() < 1e-5


@runs
@pytest.mark.parametrize("count", [1, 2, 100])
def test_all_thresholds_are_counted_exactly(count):
    maps = scores(3, 31, 67, device=DEVICE)
    truths = scores(3, 31, 67, seed=2, device=DEVICE) > 0.6
    thresholds = torch.linspace(0.1, 1, count, device=DEVICE)
    maps[0, 0, :2] = torch.tensor([0.0, 1.0])
    maps[1, 0, : min(count, 67)] = thresholds[:67]  # reached, not passed
    found = kernels.threshold_sweep(maps, truths, thresholds, backend="triton")
    assert all(map(torch.equal, found, reference.sweep(maps, truths, thresholds)))
    assert found[0].dtype == found[1].dtype == torch.int64


@runs
def test_triton_says_that_it_is_taken():
    assert kernels.choose(torch.zeros(1, device=DEVICE), "triton", d=160) == "triton"
    assert kernels.choose(torch.zeros(1, device=DEVICE), "torch") == "torch"
    assert kernels.choose(torch.zeros(1, device=DEVICE)) == "triton"


@on_gpu
def test_two_runs_give_the_same_bits():
    query, key = draw(2, 8, 4096, 4096, 40, dtype=torch.bfloat16, device="cuda")
    maps = scores(1, 4096, device="cuda")
    for transpose in (False, True):
        once, again = (kernels.complete(query, key, maps, 0.2, transpose) for _ in range(2))
        assert torch.equal(once, again)


# Machine code ----------------------------------------------------------------------------------

COMPILE = """
import subprocess, sys, tempfile
from pathlib import Path
import torch, triton
from triton.backends.compiler import GPUTarget
import triton.backends.nvidia
from triton.compiler import ASTSource
from nbhelpers.kernels import _launch, _tiled

def compiled(name, kernel, types, constants):
    names = kernel.arg_names
    options = {key: constants.pop(key) for key in ("num_warps", "num_stages") if key in constants}
    constants.update({name: 1 for name in names if name.endswith("_d")})  # as the recorder's are
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    whole = [n for n in names if signature[n][0] == "*" or n.endswith(("_batch", "_head", "_row"))]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in whole},
    )
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
        use, code = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True).stdout
            for option in ("-res-usage", "-sass")
        )
    stack = use.split("STACK:")[1].split()[0]
    print(name, stack, "HGMMA" in code, made.metadata.shared)

half = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
d, dtype = int(sys.argv[1]), getattr(torch, sys.argv[2])
heads = dict.fromkeys(("query", "key"), "*" + half[dtype])
floats = dict.fromkeys(("lse", "maps", "out", "shares", "thresholds"), "*fp32") | {"scale": "fp32"}
types = {**floats, **heads, "table": "*i32", "truths": "*u8", "found": "*i32"}
tiles = _launch.tiles(d, dtype)
few = {"TOKENS": 3, "BLOCK_N": 16}
compiled("row_lse", _tiled.row_lse_kernel, types, {**tiles, "N": 4096, "TOKENS": 77, "D": d})
compiled("columns", _tiled.columns_kernel, types, {**tiles, "N": 4096, "D": d, **few})
for chunks, width in ((1, 1), (3, _launch.TOGETHER)):
    more = {**tiles, "N": 4096, "D": d, "CHUNKS": chunks, "BLOCK_C": width}
    compiled(f"gather-{chunks}", _tiled.gather_kernel, types, dict(more))
    compiled(f"spread-{chunks}", _tiled.spread_kernel, types, dict(more))
if d == 40:
    levels = {"TELLS": 1e-6, "LEVELS": 4, "LONGEST": 4096, "BLOCK": 512}
    for normalize in (True, False):
        compiled("blend", _tiled.blend_kernel, types, levels | {"NORMALIZE": normalize})
    bins = {"THRESHOLDS": 100, "BITS": 7, "BINS": 256, "BLOCK": 2048}
    compiled("places", _tiled.places_kernel, types, bins)
"""


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("d", [40, 64, 80, 160])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_compiled_for_hopper_nothing_spills(d, dtype):
    """No kernel keeps registers on the stack, and the products run on the tensor cores."""
    said = run({"TRITON_INTERPRET": "0"}, "-c", COMPILE, str(d), dtype, timeout=280)
    rows = [line.split() for line in said.splitlines()]
    assert len(rows) == (9 if d == 40 else 6)
    for name, stack, hgmma, shared in rows:
        assert stack == "0", f"{name} spills {stack} bytes at d = {d}"
        assert int(shared) <= 227 * 1024, f"{name} wants {shared} bytes of shared memory"
        if name.startswith(("gather", "spread", "row_lse")):
            assert hgmma == str(dtype == "bfloat16"), f"{name} at d = {d}"


def test_the_kernels_bounds_are_constants():
    """The interpreter of Triton 3.6 fails on others, where NumPy is new."""
    import ast

    path = Path(kernels.__file__).with_name("_tiled.py")
    loops = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.For)]
    assert loops
    for loop in loops:
        for bound in loop.iter.args:
            constant = isinstance(bound, ast.Constant) or bound.id.isupper()
            assert constant, f"line {loop.lineno}: {ast.unparse(bound)}"
