import hashlib
import json

from clikit import write_rows
from llmpatch.recipe import DecodingSection
from llmpatch.references.local import TransformersReference
from llmpatch.references.recorded import RecordedReference

ROWS = [{"id": "a", "prompt": "How do I bake?"}, {"id": "b", "prompt": "And swim?"}, {"id": "c", "prompt": "And swim?"}]


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def reference(folder):
    return "reference={kind: transformers, model: " + str(folder) + "}"


def test_a_recording_holds_each_prompt_once_and_can_be_trained_on(cli, workspace, model_folder, tiny_base):
    prompts = write_rows(workspace / "mine.jsonl", ROWS)
    common = ("record", "recipes/demo.yaml", "--prompts", prompts, "--out", "said.jsonl", "--set", reference(model_folder),
              "--set", "decoding.max_new_tokens=5")  # fmt: skip
    found = cli(*common)
    assert found.code == 0
    assert found.out.startswith("2 answers in said.jsonl")
    asked = ["How do I bake?", "And swim?"]
    plain = dict(TransformersReference(tiny_base, DecodingSection(max_new_tokens=5)).answer(asked))
    rows = rows_of(workspace / "said.jsonl")
    assert [(row["id"], row["prompt"], row["completion"]) for row in rows] == [
        ("a", asked[0], plain[0].text), ("b", asked[1], plain[1].text),
    ]  # fmt: skip
    assert dict(RecordedReference(workspace / "said.jsonl").answer(asked)) == plain
    told = json.loads((workspace / "said.provenance.json").read_text())
    assert told["sha256"] == hashlib.sha256((workspace / "said.jsonl").read_bytes()).hexdigest()
    assert told["prompts"] == {str(prompts): hashlib.sha256(prompts.read_bytes()).hexdigest()}
    again = cli(*common, "--json")
    assert json.loads(again.out) == told


def test_samples_differ_and_stand_side_by_side(cli, workspace, model_folder):
    prompts = write_rows(workspace / "mine.jsonl", ROWS[:2])
    common = ("record", "recipes/demo.yaml", "--prompts", prompts, "--out", "said.jsonl", "--set", reference(model_folder),
              "--set", "decoding.max_new_tokens=8", "--samples", 3)  # fmt: skip
    refused = cli(*common)
    assert (refused.code, "greedy samples" in refused.err) == (1, True)
    assert cli(*common, "--set", "decoding.temperature=1.0").code == 0
    said = [row["completion"] for row in rows_of(workspace / "said.jsonl") if row["id"] == "a"]
    assert len(said) == 3
    assert len(set(said)) > 1


def test_bad_input_writes_nothing(cli, workspace, model_folder):
    prompts = write_rows(workspace / "mine.jsonl", ROWS[:2])
    for arguments, said in (
        (("--prompts", "none.jsonl", "--set", reference(model_folder)), "none.jsonl"),
        (("--prompts", prompts, "--set", "reference={kind: transformers}"), "needs model"),
        (("--prompts", prompts, "--set", "reference={kind: telepathy}"), "reference.kind"),
    ):
        found = cli("record", "recipes/demo.yaml", "--out", "said.jsonl", *arguments)
        assert found.code == 1
        assert said in found.err
        assert "Traceback" not in found.err
    assert not list(workspace.glob("said*"))
