"""Write the JSON schemas in docs/format from the models that check the files: patch.json, trust.json, policies, verdicts.

python scripts/make_schema.py            # writes it
python scripts/make_schema.py --check    # exit code 1 when it differs
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from llmpatch.artifact.manifest import Manifest
from llmpatch.files import write_text
from llmpatch.gate import Policy, Verdict
from llmpatch.signing import Trust

OUT = Path(__file__).parent.parent / "docs" / "format"
DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def schemas() -> dict[str, str]:
    """File name -> content."""
    made = {
        "patch.schema.json": ("llmpatch/patch/v1: patch.json", Manifest.model_json_schema(by_alias=True)),
        "policy.schema.json": ("llmpatch/policy/v1", Policy.model_json_schema(by_alias=True)),
        "trust.schema.json": ("llmpatch/trust/v1: trust.json", Trust.model_json_schema(by_alias=True)),
        "verdict.schema.json": ("llmpatch/verdict/v1", TypeAdapter(Verdict).json_schema(mode="serialization")),
    }
    return {
        name: json.dumps({**DIALECT, **schema, "title": title}, indent=1, ensure_ascii=False) + "\n"
        for name, (title, schema) in made.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, text in schemas().items():
        path = OUT / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            write_text(path, text)
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run python scripts/make_schema.py", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
