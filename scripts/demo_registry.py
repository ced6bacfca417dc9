"""A vendor, a registry and two customers, from the first key to a closed network: every command and what it answers.

python scripts/demo_registry.py [FOLDER]       # make demo-registry

The patches are the official one's rows under another name. Commands run in this process by the entry point that ``llmpatch``
has, each with the exit code that is expected, or the script fails. It loads no model: gates are skipped, which a customer does
not do (``--base BASE`` instead of ``--skip-gate``), and which the store records.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

from llmpatch._cli.main import main as llmpatch
from llmpatch.artifact import Patch, read_patch, write_patch

ROOT = Path(__file__).resolve().parent.parent
OFFICIAL = ROOT / "patches/smollm2/refusal"
GAP, DEFECT = "x_ACME-2026-0001", "x_ACME-2026-0002"
ROOT_KEYS = "--key root-a.pem --key root-b.pem"


def story() -> None:
    """Everything, in the current folder."""
    title("The vendor makes keys. Three stay offline; one says every day what is the newest")
    for name in ("acme", "root-a", "root-b", "online"):
        vendor(f"keys generate -o {name}.pem --no-password")

    title("A registry: two of two root keys decide who may publish under which name")
    vendor(f"registry init site --root-key root-a.pub.pem --root-key root-b.pub.pem --threshold 2 --online-key online.pub.pem "
           f"{ROOT_KEYS} --key online.pem")  # fmt: skip
    vendor(f"registry add-vendor site acme --vendor-key acme.pub.pem {ROOT_KEYS} --key online.pem")

    title("1.0.0: signed, packed, published, with the advisory that it answers")
    release("1.0.0", "acme.pem")
    vendor(f"advisory new acme-1.0.0 --id {GAP} -o {GAP}.json")
    vendor(f"registry publish site acme-1.0.0.lpatch {GAP}.json --key acme.pem")
    vendor("registry refresh site --key online.pem")

    title("A customer pins the registry's root and the vendor's key, which came another way, and installs")
    os.environ["LLMPATCH_HOME"] = "customer"
    Path("trust.json").write_text(customer("keys show acme.pub.pem --trust acme/*", quiet=True), encoding="utf-8")
    customer("registry add acme site --root site/metadata/1.root.json")
    customer("search")
    customer("install acme/refusal --trust trust.json --no-activate")
    customer("audit", expect=3)
    customer("activate acme/refusal --skip-gate --reason demonstration")
    customer("audit")

    title("1.1.0 supersedes it. The customer upgrades")
    release("1.1.0", "acme.pem")
    vendor("registry publish site acme-1.1.0.lpatch --key acme.pem --key online.pem")
    customer("upgrade --dry-run")
    customer("upgrade --trust trust.json --skip-gate")

    title("1.1.0 turns out to be defective. The customer goes back at once; the vendor revokes it")
    customer("rollback --reason 'declines recipes for bread'")
    vendor(f"advisory new acme-1.1.0 --id {DEFECT} --defect --revoke --summary 'Declines recipes.' -o {DEFECT}.json")
    vendor(f"registry publish site {DEFECT}.json --key acme.pem --key online.pem")
    customer("audit --apply")
    customer("activate acme/refusal@1.1.0 --skip-gate", expect=4)

    title("The vendor's key may have leaked: a new one takes its place, and the old one counts no more")
    vendor("keys generate -o acme-2.pem --no-password")
    vendor(
        f"registry rotate site acme --add acme-2.pub.pem --remove acme.pub.pem {ROOT_KEYS} --key acme-2.pem --key online.pem"
    )
    release("1.2.0", "acme-2.pem")
    vendor("registry publish site acme-1.2.0.lpatch --key acme.pem --key online.pem", expect=4)
    vendor("registry publish site acme-1.2.0.lpatch --key acme-2.pem --key online.pem")
    customer("upgrade --trust trust.json --skip-gate", expect=4)
    both = customer("keys show acme.pub.pem acme-2.pub.pem --trust acme/*", quiet=True)
    Path("trust.json").write_text(both, encoding="utf-8")
    customer("upgrade --trust trust.json --skip-gate")
    customer("history")

    title("A closed network: a mirror that nobody on the way can change")
    customer("registry mirror acme usb")
    old = Path(shutil.copytree("usb", "usb-old"))
    vendor("registry refresh site --days 90 --key online.pem")
    customer("registry mirror acme usb")
    os.environ["LLMPATCH_HOME"] = "inside"
    inside("registry add acme usb --root site/metadata/1.root.json")
    inside("install acme/refusal@~=1.2 --trust trust.json --skip-gate --offline")
    shutil.copyfile(old / "metadata/timestamp.json", "usb/metadata/timestamp.json")
    inside("search", expect=4)


def release(version: str, key: str) -> None:
    """Make a version of the patch out of the official one, sign and pack it."""
    make_version(read_patch(OFFICIAL), Path(f"acme-{version}"), version)
    vendor(f"sign acme-{version} --key {key}")
    vendor(f"pack acme-{version} -o acme-{version}.lpatch")


def make_version(patch: Patch, folder: Path, version: str) -> None:
    """The rows and the evidence of a patch as acme/refusal."""
    fields = patch.manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    for computed in ("schema", "prefix", "files", "checksum"):
        del fields[computed]
    fields |= {"name": "acme/refusal", "version": version, "summary": f"A demonstration: {patch.manifest.summary}"}
    fields["fixes"] = [{**fix, "advisory": GAP} for fix in fields["fixes"]]
    fields["supersedes"] = [{"name": "acme/refusal", "versions": f"<{version}"}]
    write_patch(folder, fields, patch.embeddings, patch.evidence, base_p999=patch.manifest.prefix.norm.base_p999)


def vendor(command: str, expect: int = 0) -> str:
    return run("vendor", command, expect)


def customer(command: str, expect: int = 0, *, quiet: bool = False) -> str:
    return run("customer", command, expect, quiet=quiet)


def inside(command: str, expect: int = 0) -> str:
    return run("inside", command, expect)


def run(who: str, command: str, expect: int, *, quiet: bool = False) -> str:
    """Run a command, show it and its answer, and insist on its exit code."""
    print(f"{who}$ llmpatch {command}", flush=True)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = llmpatch(shlex.split(command))
    said = (err.getvalue() + out.getvalue()).rstrip()
    if not quiet:
        print("\n".join(f"    {line}" for line in said.splitlines()) or "    (no output)", flush=True)
    if code:
        print(f"    exit code {code}", flush=True)
    if code != expect:
        raise SystemExit(f"demo_registry: exit code {code}, {expect} was expected\n{said}")
    return out.getvalue()


def title(text: str) -> None:
    print(f"\n# {text}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where it happens and what is kept; by default a temporary folder"
    )
    folder = parser.parse_args().folder
    for name in ("LLMPATCH_STORE", "LLMPATCH_KEY_PASSWORD"):
        os.environ.pop(name, None)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            sys.exit(f"demo_registry: {folder} is not empty")
        os.chdir(folder)
        story()
    print(f"\nall as expected, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
