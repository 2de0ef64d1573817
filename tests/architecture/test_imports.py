"""Imports point down one list, heavy libraries have one home, and starting up is light."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import compress
from compress.stages import STAGES

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "compress"

# From the bottom up. A file may import from lines above its own, and from its own line.
LEVELS: list[set[str]] = [
    {"__init__"},  # names only: it imports nothing until it is asked for one
    {"errors", "quoting"},
    {"io"},
    {"config", "events", "outputs", "metrics", "integer_program"},
    {"budget", "formatting", "text_table", "data", "preprocessing"},
    {"environment", "artifact", "task", "record_times", "record_scores"},
    {"record_images"},
    {"record", "layer_facts"},
    {"overwriting", "ship_folder"},
    {"modules"},
    {"quantization"},
    {"pruning"},
    {"candidate_files"},
    {"candidate"},
    {"cache"},
    {"training"},
    {"stage"},
    {"fingerprints"},
    {"backends"},
    {"measure"},
    {"pareto"},
    {"zoo"},
    {"models"},
    {"distillation"},
    {"stages"},
    {"effects"},
    {"tasks", "report", "device", "tracking", "progress"},
    {"running", "suite"},
    {"ship"},
    {"notebook", "releases"},
    {"cascade"},
    {"recipe", "starters"},
    {"reference"},
    {"cli", "testing"},
    {"__main__"},
]
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}

# Libraries that only one file, or one folder, may know.
HOMES = {
    "torch_pruning": ["pruning/importance.py"],
    "onnxruntime.quantization": ["backends/onnx/static.py"],
    "matplotlib": ["report/figures/canvas.py"],
    "jinja2": ["report/page/markup.py"],
    "markupsafe": ["report/page/markup.py"],
    "accelerate": ["training/distributed.py"],
    "argcomplete": ["cli/completion.py"],
    "sklearn": ["tasks/digits.py", "measure/shift.py"],
    "diffusers": ["effects/diffusion.py"],
    "skimage": ["effects/oil_paint.py"],
    "mlflow": ["tracking/mlflow.py"],
    "torch.utils.tensorboard": ["tracking/tensorboard.py"],
    "wandb": ["tracking/wandb.py"],
    "fsspec": ["cache/remote.py"],
    "datasets": ["tasks/datasets_folder.py"],
    "pyarrow": ["tasks/parquet.py"],
    "PIL": [
        *("effects/contact_sheet.py", "effects/diffusion.py", "effects/reading.py"),
        "tasks/image_files.py",
        "ship/program/reading.py",
    ],
    "tokenizers": ["tasks/tokens.py", "testing/tiny_bert.py", "ship/program/reading.py"],
    "av": ["cli/video.py"],
    "rich": ["progress/terminal.py", "text_table.py"],
    "IPython": ["progress/notebook.py"],
    "pandas": ["notebook/record.py"],
    "transformers": ["models/huggingface.py", "testing/tiny_bert.py", "testing/tiny_hub.py"],
    "optimum": ["models/hub_tasks.py"],
}

# Parts that must work where there is no torch: on devices, and where reports are made.
WITHOUT_TORCH = ["errors", "config.selectors", "config.references", "config.recipe_file"]
WITHOUT_TORCH += ["artifact", "budget", "record", "quantization.numerics"]
WITHOUT_TORCH += ["quantization.formats", "pruning.invariants"]
WITHOUT_TORCH += ["pareto", "report", "measure", "measure.local", "measure.replay"]
WITHOUT_TORCH += ["tracking", "cache", "events", "formatting", "text_table"]
WITHOUT_TORCH += [
    "layer_facts",
    "integer_program",
    "measure.quantities",
    "reference",
    "reference.paths",
    "cli.explain",
    "cascade.curve",
    "cascade.detection",
    "cascade.fitting",
    "cascade.frames",
]


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Modules that a file imports at run time, with the line; typing-only imports do not count."""
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module, node.lineno


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_level():
    assert {room_of(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = LEVEL[room_of(path)]
    for module, line in imports_of(path):
        parts = module.split(".")
        if parts[0] != "compress":
            continue
        room = parts[1] if len(parts) > 1 else "__init__"
        same = room == room_of(path)
        assert same or LEVEL[room] < own, f"{path}:{line} imports {module}, which lies above it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_libraries_stay_in_their_homes(path):
    here = path.relative_to(PACKAGE).as_posix()
    for module, line in imports_of(path):
        for library, homes in HOMES.items():
            if module == library or module.startswith(f"{library}."):
                assert here in homes, f"{path}:{line} imports {library}; its home is {homes}"


def test_stages_do_not_import_stages():
    kinds = {stage.model_fields["kind"].default for stage in STAGES}
    for kind in kinds:
        for module, line in imports_of(PACKAGE / "stages" / f"{kind}.py"):
            assert module.removeprefix("compress.stages.") not in kinds, f"{kind}.py:{line}"


@pytest.mark.parametrize("room", ["modules", "quantization", "pruning", "training"])
def test_algorithms_know_nothing_of_candidates(room):
    for path in (PACKAGE / room).rglob("*.py"):
        assert "compress.candidate" not in {module for module, _ in imports_of(path)}, path


def loaded_by(statement):
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_plain_data_and_measuring_load_no_torch(module):
    assert "torch" not in loaded_by(f"import compress.{module}")


def test_the_package_and_its_help_load_nothing_heavy():
    heavy = {"torch", "numpy", "onnx", "onnxruntime", "matplotlib", "pydantic", "yaml", "rich"}
    code = (
        "import contextlib, io, sys, compress.cli\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    compress.cli.main(['--help'])\n"
        "print(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_a_slip_in_a_recipe_is_told_before_anything_heavy_is_loaded(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("stages: [1")
    for file in (wrong, tmp_path / "gone.yaml"):
        found = loaded_by(f"import compress.cli; compress.cli.main(['plan', {str(file)!r}])")
        assert not {"torch", "onnxruntime", "matplotlib"} & found


def test_public_names_exist_and_are_sorted():
    import compress

    assert compress.__all__ == sorted(compress.__all__)
    assert set(compress.__all__) == set(compress._HOMES)
    for name in compress.__all__:
        assert getattr(compress, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        compress.Nonsense  # noqa: B018


@pytest.mark.parametrize("name", compress.__all__)
def test_a_public_name_says_what_it_is_and_what_its_methods_do(name):
    public = getattr(compress, name)
    assert public.__name__ == name
    assert (public.__doc__ or "").strip(), f"{name} has no docstring"
    methods = [
        (key, value)
        for key, value in vars(public).items()
        if not key.startswith("_") and inspect.isfunction(value) and value.__name__ == key
    ]
    for key, method in methods:
        assert (inspect.getdoc(getattr(public, key)) or "").strip(), f"{name}.{key}"
        assert "return" in method.__annotations__, f"{name}.{key} does not say what it gives"


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield path, node


def test_no_function_takes_arbitrary_keywords():
    found = [(path, f.name) for path, f in functions() if f.args.kwarg]
    # The keys of a block are those of its class, and this is what all of these are made by.
    makes_blocks = (PACKAGE / "config" / "settings.py", "__init__")
    # What stands where a block was is called as the block was, whatever that took.
    stands_for_others = (PACKAGE / "modules" / "edits.py", "forward")
    # A net is called by the names of its inputs, which here the recipe chooses.
    named_by_recipe = (PACKAGE / "zoo" / "mobile_unet.py", "forward")
    assert found == [makes_blocks, stands_for_others, named_by_recipe]


def test_functions_stay_short():
    def length(function):
        start = function.body[0]
        documented = isinstance(start, ast.Expr) and isinstance(start.value, ast.Constant)
        begin = function.body[1].lineno if documented and len(function.body) > 1 else start.lineno
        return function.end_lineno - begin + 1

    lengths = sorted(length(function) for _, function in functions())
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[-1] <= 60


def test_files_stay_small():
    lengths = {path: len(path.read_text().splitlines()) for path in FILES}
    assert not {str(path): length for path, length in lengths.items() if length > 400}


def test_no_room_is_a_drawer():
    assert not {"utils", "helpers", "common", "misc"} & {path.stem for path in FILES}
