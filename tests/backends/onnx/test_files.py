import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from compress.artifact import model_files
from compress.backends.onnx.census import take_census
from compress.backends.onnx.files import save
from compress.backends.onnx.graph import finish
from compress.errors import StorageError

pytestmark = pytest.mark.fast


@pytest.fixture
def proto(exported):
    model = exported("residual")
    finish(model)
    return ir.to_proto(model)


def test_weights_above_the_limit_go_beside_the_model_and_are_counted(proto, tmp_path):
    whole, split = tmp_path / "whole.onnx", tmp_path / "split.onnx"
    save(onnx.ModelProto.FromString(proto.SerializeToString()), whole)
    save(proto, split, external_above_bytes=100)
    assert [part.name for part in model_files(split)] == ["split.onnx", "split.onnx.data"]
    assert model_files(whole) == [whole]
    one, two = take_census(whole), take_census(split)
    assert two.weight_bytes == one.weight_bytes
    assert two.macs == one.macs
    total = sum(part.stat().st_size for part in model_files(split))
    assert two.graph_bytes == total - sum(two.weight_bytes.values())


def test_a_disk_that_refuses_is_a_storage_error(proto, tmp_path):
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    with pytest.raises(StorageError, match=r"folder.onnx: the model could not be written"):
        save(proto, folder)


def test_finishing_shares_equal_constants_and_strips_what_is_only_for_people(proto):
    arrays = [numpy_helper.to_array(t) for t in proto.graph.initializer]
    assert len({(a.dtype, a.shape, a.tobytes()) for a in arrays}) == len(arrays)
    assert all(t.HasField("raw_data") for t in proto.graph.initializer)
    assert not proto.metadata_props
    assert not proto.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    names = [*(t.name for t in proto.graph.initializer), *(n.name for n in proto.graph.node)]
    assert max(map(len, names)) <= 2
    assert len(set(names)) == len(names)
    assert proto.producer_name == "compresskit"


def test_names_that_a_model_uses_itself_are_not_given_twice():
    source, result = ir.val("a", ir.DataType.FLOAT, [1]), ir.val("b", ir.DataType.FLOAT, [1])
    constant = ir.val("k", const_value=ir.tensor(np.ones(1, np.float32)))
    node = ir.node("Add", [source, constant], outputs=[result])
    graph = ir.Graph(
        [source], [result], nodes=[node], initializers=[constant], opset_imports={"": 20}
    )
    model = ir.Model(graph, ir_version=10)
    finish(model)
    assert [value.name for value in model.graph.inputs] == ["a"]
    assert list(model.graph.initializers) == ["c"]
    onnx.checker.check_model(ir.to_proto(model))
