"""Turns a compiled .proto file into message classes, independent of the protobuf runtime's version.

protoc's own Python output refuses runtimes more than one major version away from the compiler
(google/protobuf/runtime_version.py), so a file compiled once cannot serve everyone pip may give another runtime.
A serialized FileDescriptorProto has no such bound. Each file gets a pool of its own, so our subset of a message
never collides with somebody else's full definition of it in the same process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper


def define(namespace: dict[str, Any], serialized_file: bytes) -> None:
    """Puts the message classes and enum values of one compiled .proto file into ``namespace``.

    ``serialized_file`` is a FileDescriptorProto without imports (``protoc --descriptor_set_out``).
    """
    # Not by way of a FileDescriptorProto: that message's own descriptors would take 2 MB of memory.
    descriptor = descriptor_pool.DescriptorPool().AddSerializedFile(serialized_file)
    namespace["DESCRIPTOR"] = descriptor
    for name, message in descriptor.message_types_by_name.items():
        namespace[name] = message_factory.GetMessageClass(message)
    for name, enum in descriptor.enum_types_by_name.items():
        namespace[name] = EnumTypeWrapper(enum)
        for value in enum.values:
            namespace[value.name] = value.number
