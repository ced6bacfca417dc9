"""Write the JSON schemas in docs/format from the models that check the files.

python scripts/make_schema.py            # writes it
python scripts/make_schema.py --check    # exit code 1 when it differs
"""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from generated import main
from llmpatch.advisories import Advisory
from llmpatch.artifact.composition import Record
from llmpatch.artifact.manifest import Manifest
from llmpatch.exporting import Description
from llmpatch.gate import Policy, Verdict
from llmpatch.signing import Trust
from llmpatch.store import Lock

DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def schemas() -> dict[str, str]:
    """Content by path."""
    made = {
        "advisory.schema.json": ("OSV 1.7, as llmpatch reads it", Advisory.model_json_schema(by_alias=True)),
        "composition.schema.json": ("llmpatch/composition/v1", Record.model_json_schema(by_alias=True)),
        "lock.schema.json": ("llmpatch/lock/v1", Lock.model_json_schema(by_alias=True)),
        "export.schema.json": ("llmpatch/export/v1: export.json", Description.model_json_schema(by_alias=True)),
        "patch.schema.json": ("llmpatch/patch/v1: patch.json", Manifest.model_json_schema(by_alias=True)),
        "policy.schema.json": ("llmpatch/policy/v1", Policy.model_json_schema(by_alias=True)),
        "trust.schema.json": ("llmpatch/trust/v1: trust.json", Trust.model_json_schema(by_alias=True)),
        "verdict.schema.json": ("llmpatch/verdict/v1", TypeAdapter(Verdict).json_schema(mode="serialization")),
    }
    return {
        f"docs/format/{name}": json.dumps({**DIALECT, **schema, "title": title}, indent=1, ensure_ascii=False) + "\n"
        for name, (title, schema) in made.items()
    }


if __name__ == "__main__":
    main(schemas, __doc__, "scripts/make_schema.py")
