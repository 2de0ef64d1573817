"""``lower``: a candidate as one checked ONNX file.

The order of work::

    export        float32 graph at a static batch, layers marked          export.py
    canonicalize  few shapes: products, weights, poolings                  canonicalize.py
    check         the float graph with the module                          float_graph.py
    encode        the formats of the layers                                encoding.py
                    static, by calibration on this graph                     static.py ranges.py
                    dynamic, scaled weights, casts                           layers.py
    check         fused kernels with the operators that they stand for     kernels.py
    finish, save  strip, share, shorten; external data where needed        graph.py files.py
    check         load, run, compare with the simulated module             parity.py
    census        what the file is made of                                 census.py
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from compress.artifact import (
    Artifact,
    Census,
    Lowering,
    Parity,
    file_sha256,
    model_files,
    modules_file,
)
from compress.backends.base import check_formats, check_open
from compress.backends.onnx.census import census_notes
from compress.backends.onnx.encoding import (
    EncodedGraph,
    KernelFallbacks,
    are_float,
    encode_canonical,
    module_of,
)
from compress.backends.onnx.export import STATIC, OpenShapes, check_weights, layer_of
from compress.backends.onnx.feeds import check_inputs, cut, head
from compress.backends.onnx.files import save
from compress.backends.onnx.float_graph import FloatGraph, float_graph
from compress.backends.onnx.graph import Array, finish
from compress.backends.onnx.kernels import differ, wrong_kernels
from compress.backends.onnx.locate import describe_operator, evaluate, noisiest
from compress.backends.onnx.open_axes import (
    census_at,
    check_at,
    check_runs,
    open_shapes,
    other_sizes,
    together,
)
from compress.backends.onnx.parity import Bound, bound_of, check_parity, simulated_outputs
from compress.backends.onnx.ranges import Range
from compress.backends.onnx.recurrent import substitutions
from compress.backends.onnx.weights import has_scaled_weights
from compress.candidate import Candidate
from compress.errors import ContractViolation, DataError, LoweringError, ParityError, StorageError
from compress.io.scratch import scratch
from compress.modules.inputs import Inputs, batch_size_of, copied, forward
from compress.modules.outputs import Outputs, by_name
from compress.quantization.fakequant import (
    declared_formats,
    layers_with_formats,
    quantizable_layers,
)
from compress.quantization.numerics import LayerFormat

__all__ = ["LoweringJob", "check_output", "checked_file", "lower"]


#: Samples that the float graph is compared on, that kernels are, and that these are in pieces.
_FLOAT_SAMPLES = 6
_KERNEL_SAMPLES = 3
_PIECES_SAMPLES = 3


def lower(
    candidate: Candidate,
    lowering: Lowering,
    *,
    calibration: Sequence[Inputs],
    check: Inputs,
    path: Path,
) -> Artifact:
    """Write ``candidate`` to ``path`` in its declared formats, check it, and describe it.

    Args:
        candidate: left as it was.
        lowering: batch, opset and encoding that the target wants.
        calibration: batches of inputs for the ranges of static activations; may be empty if there
            are none.
        check: real inputs for parity, samples on axis 0; a few hundred are enough.
        path: of the model; weights above 2 GB go to ``NAME.data`` beside it.

    Raises:
        LoweringError: a model that cannot be exported or encoded, or inputs that nothing can be
            compared on.
        ParityError: a file that does not compute what the module computes; nothing is left at
            ``path`` then.
        StorageError: the disk refused.
    """
    check_inputs(check, "check")
    if any(rule.format.needs_range for rule in candidate.numerics.rules):
        for number, batch in enumerate(calibration):
            check_inputs(batch, f"calibration[{number}]")
    module = copy.deepcopy(candidate.module).eval()
    check_weights(module)
    check_output(module, candidate)
    shapes = replace(open_shapes(candidate.example, lowering), ships=candidate.outputs)
    job = LoweringJob(module, candidate, lowering, tuple(calibration), check, shapes)
    check_formats(job.declared, lowering.refused)
    check_open(job.declared, candidate.example, lowering.open)
    return _write(path, job)


@dataclass(frozen=True, eq=False)
class LoweringJob:
    """What one call of :func:`lower` knows: the module, its inputs, and what the file is to be."""

    module: nn.Module
    candidate: Candidate
    lowering: Lowering
    calibration: tuple[Inputs, ...]
    check: Inputs
    shapes: OpenShapes = STATIC

    @cached_property
    def declared(self) -> dict[str, LayerFormat]:
        """The format of each layer that has one."""
        return declared_formats(self.module, self.candidate.numerics, self.candidate.example)

    @cached_property
    def reference(self) -> dict[str, Array]:
        """Outputs of the float module for the first samples of ``check``."""
        if all(format.is_float32 for format in self.declared.values()):
            return {name: array[:_FLOAT_SAMPLES] for name, array in self.expected_float.items()}
        return self.float_outputs()

    @cached_property
    def expected_float(self) -> dict[str, Array]:
        """Outputs of the float module for ``check``."""
        return self.simulated(self.check, {}, {})

    def float_outputs(self) -> dict[str, Array]:
        """Outputs of the float module for the first samples, where nothing else needs them."""
        return self.simulated(head(self.check, _FLOAT_SAMPLES), {}, {})

    def expected(self, encoded: EncodedGraph) -> dict[str, Array]:
        """Outputs of the module for ``check``, under the formats of ``encoded``."""
        if all(format.is_float32 for format in encoded.formats.values()):
            return self.expected_float
        return self.simulated(self.check, encoded.formats, encoded.ranges)

    def simulated(
        self, inputs: Inputs, formats: Mapping[str, LayerFormat], ranges: Mapping[str, Range]
    ) -> dict[str, Array]:
        """Outputs of the module that ship, for ``inputs`` under ``formats``, by name."""
        return simulated_outputs(
            self.module,
            inputs,
            formats,
            ranges,
            avoid_saturation=self.lowering.avoid_saturation,
            ships=self.shapes.ships,
        )

    def bounds(
        self, encoded: EncodedGraph, reference: Mapping[str, Array], expected: Mapping[str, Array]
    ) -> dict[str, Bound]:
        """What each output is held to, given those of the float module and the simulated ones."""
        found = {}
        for place, (name, floats) in enumerate(reference.items()):
            behind = encoded.formats_of(place)
            few = expected[name][: len(floats)]
            found[name] = bound_of(behind, floats, few, is_float=are_float(behind))
        return found

    def formats(self, graph: ir.Graph) -> dict[str, LayerFormat]:
        """The declared formats of what is in the graph, and of products that are not.

        What a layer makes of constants is a constant itself and stays float, which is noted of
        products. An embedding is often read at fixed places (positions, say): no note.
        """
        products = quantizable_layers(self.module).keys() - self.left_out
        there = {layer_of(node) for node in graph} | products
        return {name: format for name, format in self.declared.items() if name in there}

    @cached_property
    def left_out(self) -> set[str]:
        """Products that only outputs rest on which do not ship; no gradient comes from others."""
        if not self.shapes.ships:
            return set()
        names = list(quantizable_layers(self.module))
        weights = [self.module.get_submodule(name).get_parameter("weight") for name in names]
        outputs = by_name(self.candidate.shipped(forward(self.module, self.candidate.example)))
        sums = [output.sum() for output in outputs.values() if output.requires_grad]
        if not sums:
            return set()
        gradients = torch.autograd.grad(sums, weights, allow_unused=True)
        return {name for name, found in zip(names, gradients, strict=True) if found is None}

    def float_graph(self) -> FloatGraph:
        """The float graph, compared with the module."""
        return float_graph(
            self.module,
            self.candidate.example,
            self.lowering,
            self.formats,
            head(self.check, _FLOAT_SAMPLES),
            self.reference,
            self.shapes,
        )

    def encode(self, made: FloatGraph, fallbacks: KernelFallbacks) -> EncodedGraph:
        """The float graph, which is used up, in its formats."""
        encoded = encode_canonical(
            made.model,
            self.formats(made.model.graph),
            self.calibration,
            avoid_saturation=self.lowering.avoid_saturation,
            copied=made.copied,
            fallbacks=fallbacks,
        )
        replaced = substitutions(self.module, self.candidate.numerics, encoded.formats)
        return encoded._replace(warnings=(*made.notes, *encoded.warnings, *replaced))

    def feeds(self, graph: ir.Graph, samples: int) -> list[dict[str, Array]]:
        """The first samples of ``check`` in batches of the lowering's size."""
        names = [str(value.name) for value in graph.inputs]
        few = head(self.check, max(samples, self.lowering.batch))
        return [feed for feed, _ in cut(few, names, self.lowering.batch)]

    def checked(self) -> tuple[EncodedGraph, KernelFallbacks]:
        """The encoded graph, without int8 kernels that compute something else than they should."""
        fallbacks = KernelFallbacks()
        while True:
            encoded = self.encode(self.float_graph(), fallbacks)
            # Of a float file, the graph as it is written and the deployed one are both compared
            # with the module; nothing is left to ask here.
            wrong = [] if encoded.is_float else self.wrong_kernels(encoded.model)
            if not wrong:
                return encoded, fallbacks
            more = fallbacks.with_nodes(wrong)
            if more == fallbacks:
                raise ParityError(
                    "onnxruntime's optimized graph does not compute what the graph says, from "
                    f"{describe_operator(wrong[0])} on; write it with other operators, or exclude "
                    "the layers around it from the quantization."
                )
            fallbacks = more

    def wrong_kernels(self, model: ir.Model) -> list[ir.Node]:
        """The operators whose kernels compute something else; usually none are even looked for."""
        if not differ(ir.to_proto(model), self.feeds(model.graph, _KERNEL_SAMPLES)):
            return []
        return wrong_kernels(model, self.feeds(model.graph, _PIECES_SAMPLES))

    def noisiest(self, fallbacks: KernelFallbacks) -> str:
        """The operator that adds most to the noise of the encoded graph, in words."""
        made = self.float_graph()
        feeds = self.feeds(made.model.graph, _PIECES_SAMPLES)
        floats = ir.to_proto(made.model)
        model = self.encode(made, fallbacks).model  # which uses the float graph up
        if wrong := self.wrong_kernels(model):
            return describe_operator(wrong[0])
        wanted = {name for node in floats.graph.node for name in node.output if name}
        graph, encoded = ir.from_proto(floats).graph, ir.to_proto(model)
        there = {name for node in encoded.graph.node for name in node.output}
        names = sorted(wanted & there)
        node = noisiest(graph, evaluate(floats, names, feeds), evaluate(encoded, names, feeds))
        return "an operator" if node is None else describe_operator(node)


def checked_file(job: LoweringJob, path: Path) -> tuple[EncodedGraph, Parity]:
    """Write the file to ``path`` in its formats, and compare what it computes with the module.

    Raises:
        LoweringError: a module that cannot be exported or encoded.
        ParityError: a file that computes something else, which is left at ``path``.
        StorageError: the disk refused.
    """
    encoded, fallbacks = job.checked()
    finish(encoded.model)
    save(ir.to_proto(encoded.model), path)
    expected = job.expected(encoded)
    parity = check_parity(
        path,
        job.check,
        expected,
        job.bounds(encoded, job.reference, expected),
        where=lambda: job.noisiest(fallbacks),
    )
    return encoded, parity


def _write(path: Path, job: LoweringJob) -> Artifact:
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Checked in a folder of its own and then moved: a bad file never stands at ``path``.
        with scratch(path.parent) as folder:
            draft = Path(folder) / path.name
            encoded, parity = checked_file(job, draft)
            for batch in other_sizes(job.check, job.lowering):
                check_runs(job.module, batch)
                check_at(job, encoded, batch, draft)
            for stale in model_files(path):
                stale.unlink(missing_ok=True)
            for part in reversed(model_files(draft)):
                part.replace(path.parent / part.name)
        sha256 = file_sha256(path)
        named = {str(node.name): module_of(node) for node in encoded.model.graph}
        modules = {name: module for name, module in named.items() if module is not None}
        modules_file(path).write_text(json.dumps({"sha256": sha256, "modules": modules}) + "\n")
    except OSError as error:
        raise StorageError(
            f"{path}: the artifact could not be written ({error.strerror or error}); free space "
            "or choose another folder."
        ) from error
    census = census_at(path, job.check, job.lowering)
    return Artifact(
        path=path,
        sha256=sha256,
        bytes=sum(part.stat().st_size for part in model_files(path)),
        lowering=job.lowering,
        census=census,
        parity=parity,
        outputs=tuple(job.reference),
        warnings=(*encoded.warnings, *together(encoded, job.lowering), *_census_notes(census, job)),
    )


def _census_notes(census: Census, job: LoweringJob) -> tuple[str, ...]:
    asked = job.candidate.numerics.resolve(layers_with_formats(job.module)).values()
    return census_notes(
        census,
        int8=any(format.activation_quantizer.has_int8_kernels for format in asked),
        narrow_weights=any(has_scaled_weights(format) for format in asked),
    )


def check_output(module: nn.Module, candidate: Candidate) -> None:
    """See that a module's outputs are tensors, samples first, and the same each time.

    Args:
        module: the candidate's, or a copy.
        candidate: says which outputs ship.

    Raises:
        LoweringError: something that is no tensor, an output that there is not, or one without
            samples on axis 0.
        ParityError: other outputs for the same inputs.
    """
    example = candidate.example
    try:
        with torch.no_grad():
            first, again = (candidate.shipped(forward(module, copied(example))) for _ in range(2))
    except (ContractViolation, DataError) as error:
        raise LoweringError(f"cannot lower: {error}") from error
    samples = batch_size_of(example)
    for name, tensor in by_name(first).items():
        if not tensor.dim() or len(tensor) != samples:
            raise LoweringError(_without_samples(first, name, samples))
    if not _are_equal(first, again):
        raise ParityError(
            "the model gives other outputs each time that it is run on the same inputs, which a "
            "file cannot; take what is random, or kept from one call to the next, out of forward."
        )


def _without_samples(outputs: Outputs, name: str, samples: int) -> str:
    shape = tuple(by_name(outputs)[name].shape)
    if not isinstance(outputs, dict):
        return (
            f"the model gives outputs of shape {shape} for a batch of {samples}; their first axis "
            "has to be the samples."
        )
    return (
        f"the model gives an output {name!r} of shape {shape} for a batch of {samples}; its first "
        "axis has to be the samples: repeat it for each, or name the outputs that ship without it "
        "in the task's `outputs`."
    )


def _are_equal(first: Outputs, again: Outputs) -> bool:
    own, other = by_name(first), by_name(again)
    return own.keys() == other.keys() and all(
        torch.equal(tensor.nan_to_num(), other[name].nan_to_num()) for name, tensor in own.items()
    )
