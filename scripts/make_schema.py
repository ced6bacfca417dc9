"""Write docs/format/patch.schema.json from the pydantic model of patch.json.

python scripts/make_schema.py            # writes it
python scripts/make_schema.py --check    # exit code 1 when it differs
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from llmpatch.artifact.manifest import SCHEMA, Manifest
from llmpatch.files import write_text

OUT = Path(__file__).parent.parent / "docs" / "format" / "patch.schema.json"


def schema() -> str:
    made = Manifest.model_json_schema(by_alias=True)
    made["title"] = f"{SCHEMA}: patch.json"
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**head, **made}, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        write_text(OUT, schema())
        return
    if not OUT.is_file() or OUT.read_text(encoding="utf-8") != schema():
        print(f"{OUT} is out of date: run python scripts/make_schema.py", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
