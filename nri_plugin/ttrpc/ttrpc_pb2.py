# Compiled from ttrpc.proto by tools/protos.py; edit that file, then run `make protos`.
from shared.protobuf import define

define(
    globals(),
    b'\n\x0bttrpc.proto\x12\x11nri_restore.ttrpc"x\n\x07Request\x12\x18\n\x07service\x18\x01 \x01(\tR\x07service\x12\x16\n\x06method\x18\x02 \x01(\tR\x06method\x12\x18\n\x07payload\x18\x03 \x01(\x0cR\x07payload\x12!\n\x0ctimeout_nano\x18\x04 \x01(\x03R\x0btimeoutNano"6\n\x06Status\x12\x12\n\x04code\x18\x01 \x01(\x05R\x04code\x12\x18\n\x07message\x18\x02 \x01(\x0cR\x07message"W\n\x08Response\x121\n\x06status\x18\x01 \x01(\x0b2\x19.nri_restore.ttrpc.StatusR\x06status\x12\x18\n\x07payload\x18\x02 \x01(\x0cR\x07payloadb\x06proto3',
)
