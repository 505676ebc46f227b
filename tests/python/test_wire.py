"""A batch of the log, decoded in Python from schemas/proto/weir.proto alone, holds what weir put into it.

./dev test runs it with the protobuf and grpcio-tools of tools/python/requirements.txt.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import google.protobuf
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = [
    "site", "id", "host", "page", "query", "referrer", "user_agent", "country", "name", "target", "title", "screen",
    "language",
]


def generated(folder):
    """The classes that protoc makes of the .proto."""
    proto = ROOT / "schemas" / "proto"
    status = protoc.main(["protoc", f"-I{proto}", f"--python_out={folder}", str(proto / "weir.proto")])
    assert status == 0, f"protoc: {status}"
    sys.path.insert(0, folder)
    import weir_pb2

    return weir_pb2


def events_of(batch):
    """The batch's events, by the rules that the comments of the .proto give."""
    entry = lambda column, row: column[row] if column else 0
    prop = 0
    for row in range(batch.events):
        received = batch.base_ms + entry(batch.received, row)
        claim = entry(batch.claim, row)
        claimed = None
        if claim:
            number = claim - 1
            claimed = received - ((number >> 1) ^ -(number & 1))
        count = entry(batch.props, row)
        places = range(prop, prop + count)
        prop += count
        yield {
            "kind": entry(batch.kind, row), "received_ms": received, "claimed_ms": claimed,
            "visitor": entry(batch.visitor, row),
            "props": [[batch.strings[batch.prop_names[p]], batch.strings[batch.prop_values[p]]] for p in places],
            **{text: batch.strings[entry(getattr(batch, text), row)] for text in TEXTS},
        }


def main():
    command = ["cargo", "run", "--release", "--locked", "--quiet", "-p", "weir-schemas", "--example", "write_batch"]
    record_hex, said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    said = json.loads(said)
    with tempfile.TemporaryDirectory() as folder:
        weir = generated(folder)
        record = weir.Record.FromString(bytes.fromhex(record_hex))
        assert record.WhichOneof("content") == "batch"
        assert record.sent_ms == said["sent_ms"]
        assert record.batch.collector == b"sixteen bytes it"
        assert record.batch.sequence == said["sequence"]
        found = list(events_of(record.batch))
        assert found == said["events"], f"{found}\n{said['events']}"
    print(f"{len(found)} passed, 0 failed (protobuf {google.protobuf.__version__})")


main()
