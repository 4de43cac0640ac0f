"""Read the constants of a frozen TensorFlow graph by protobuf, without TensorFlow."""

from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

DT_FLOAT = 1
# The fields that are read, of TensorFlow's graph.proto, node_def.proto, attr_value.proto and tensor.proto
DEFINITIONS = """
name: "graph.proto" syntax: "proto3"
message_type { name: "GraphDef"
  field { name: "node" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "NodeDef" } }
message_type { name: "NodeDef"
  field { name: "name" number: 1 type: TYPE_STRING }
  field { name: "attr" number: 5 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Attribute" } }
message_type { name: "Attribute"
  field { name: "key" number: 1 type: TYPE_STRING }
  field { name: "value" number: 2 type: TYPE_MESSAGE type_name: "AttrValue" } }
message_type { name: "AttrValue"
  field { name: "tensor" number: 8 type: TYPE_MESSAGE type_name: "TensorProto" } }
message_type { name: "TensorProto"
  field { name: "dtype" number: 1 type: TYPE_INT32 }
  field { name: "tensor_shape" number: 2 type: TYPE_MESSAGE type_name: "TensorShapeProto" }
  field { name: "tensor_content" number: 4 type: TYPE_BYTES }
  field { name: "float_val" number: 5 label: LABEL_REPEATED type: TYPE_FLOAT } }
message_type { name: "TensorShapeProto"
  field { name: "dim" number: 2 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Dim" } }
message_type { name: "Dim" field { name: "size" number: 1 type: TYPE_INT64 } }
"""


def read_constants(path: Path) -> dict[str, np.ndarray]:
    """Return the float constants of a binary GraphDef by name. A short list of values repeats its last one.

    Raises:
        OSError, ValueError: no such file, another kind of file, or a truncated one.
    """
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(DEFINITIONS, descriptor_pb2.FileDescriptorProto()))
    try:
        graph = message_factory.GetMessageClass(pool.FindMessageTypeByName("GraphDef")).FromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"not a frozen TensorFlow graph, or truncated: {error}") from error
    constants = {}
    for node in graph.node:
        tensor = next((one.value.tensor for one in node.attr if one.key == "value"), None)
        if tensor is not None and tensor.dtype == DT_FLOAT:
            shape = [dim.size for dim in tensor.tensor_shape.dim]
            values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else tensor.float_val
            array = np.array(values, np.float32)
            constants[node.name] = np.pad(array, (0, int(np.prod(shape)) - len(array)), mode="edge").reshape(shape)
    return constants
