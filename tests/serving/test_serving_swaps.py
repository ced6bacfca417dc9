"""Changing what is active under load, who may do it, and the canary that proves what is applied."""

from __future__ import annotations

import collections
import dataclasses
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmpatch import store as stores
from llmpatch.errors import UsageError
from llmpatch.serving.admin import Admin, read_token
from llmpatch.serving.patchsets import CanaryError
from servekit import TOKEN, make_patch, save_patch, serving
from storekit import add

BEARER = {"authorization": f"Bearer {TOKEN}"}


def until(condition, seconds=200.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def with_refusal_active(base, tmp_path):
    """A store in which a patch for a base is active, and its digest."""
    store = stores.Store(tmp_path / "store")
    digest = stores.install(store, save_patch(tmp_path, base, "acme/refusal", seed=1), stores.unsigned).digest
    stores.activate(store, digest, skip_gate=True)
    return store, digest


def test_swaps_under_load_fail_nothing_and_mix_nothing(tiny, patches):
    sets = [(), (patches["first"],), (patches["second"],), (patches["first"], patches["second"])]
    questions = ["Hi", "Tell me about the sea", "Why?"]
    with serving(tiny, [], rows=6) as live:
        live.desk.given = (patches["first"], patches["second"])
        wanted = {
            (live.desk.ready(group).level, q): live.expected(q, group, max_new_tokens=6)
            for group in sets
            for q in questions
        }
        assert len(set(wanted.values())) > len(questions)  # the sets can be told apart
        seen: collections.Counter = collections.Counter()
        wrong: list = []

        def ask(worker: int) -> None:
            for i in range(50):
                question = questions[(worker + i) % 3]
                response = live.chat(question, max_tokens=6)
                level = response.headers["x-llmpatch-level"]
                body = response.json()
                seen[level] += 1
                if response.status_code != 200 or body["system_fingerprint"] != level:
                    wrong.append(body)
                elif body["choices"][0]["message"]["content"] != wanted[level, question]:
                    wrong.append((level, question, body))

        workers = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
        for worker in workers:
            worker.start()
        for i in range(50):
            names = [patch.manifest.name for patch in sets[i % len(sets)]]
            done = live.http.post("/admin/activate", json={"patches": names}, headers=BEARER)
            assert done.status_code == 200
            assert done.json()["active"] == live.desk.ready(sets[i % len(sets)]).level
            time.sleep(0.01)
        for worker in workers:
            worker.join(300)
        assert wrong == []
        assert sum(seen.values()) == 300
        assert len(seen) > 1
        assert live.desk.swapped >= 49


def test_the_server_follows_the_store_and_administers_it(tiny, tmp_path):
    store = stores.Store(tmp_path / "store")
    first = stores.install(store, save_patch(tmp_path, tiny, "acme/refusal", seed=1), stores.unsigned).digest
    newer = save_patch(tmp_path, tiny, "acme/refusal", version="1.1.0", seed=2)
    second = stores.install(store, newer, stores.unsigned).digest
    with serving(tiny, None, store) as live:
        assert live.desk.active.level == "none"
        stores.activate(store, first, skip_gate=True)
        until(lambda: live.desk.active.level.startswith("acme/refusal@1.0.0"))
        patch = stores.read_stored(store, first)
        assert live.chat().json()["choices"][0]["message"]["content"] == live.expected("Hi", [patch])

        refused = live.http.post("/admin/activate", json={"patches": ["acme/refusal@1.1.0"]}, headers=BEARER)
        assert (refused.status_code, live.desk.active.level[:18]) == (400, "acme/refusal@1.0.0")
        wanted = {"patches": ["acme/refusal@1.1.0"], "skip_gate": True, "reason": "tried elsewhere"}
        done = live.http.post("/admin/activate", json=wanted, headers=BEARER).json()
        assert done["active"].startswith("acme/refusal@1.1.0")
        assert stores.load(store).state.active_digests == {second}
        assert "tried elsewhere" in stores.load(store).generation.reason
        back = live.http.post("/admin/rollback", headers=BEARER).json()
        assert back["active"].startswith("acme/refusal@1.0.0")
        assert back["generation"] == stores.load(store).generation.number
        assert [swap["new"][:18] for swap in back["last_swaps"]][-1] == "acme/refusal@1.0.0"

        stores.revoke(store, first, "found wanting")
        until(lambda: not live.desk.active.level.startswith("acme/refusal@1.0.0"))
        gone = live.chat(patches=["acme/refusal@1.0.0"])
        assert (gone.status_code, "revoked" in gone.text) == (403, True)


def test_a_store_that_breaks_leaves_what_was_active(tiny, tmp_path):
    store, _ = with_refusal_active(tiny, tmp_path)
    with serving(tiny, None, store) as live:
        level = live.desk.active.level
        for path in store.generations.iterdir():
            path.chmod(0o644)
            path.write_text("{}")
        store.current.write_text("{}")
        until(lambda: live.desk.trouble)
        assert live.chat().headers["x-llmpatch-level"] == level != "none"
        assert live.http.get("/health").json()["trouble"]


def test_a_store_that_goes_away_leaves_what_was_active(tiny, tmp_path):
    """Unmounted, or moved to be replaced: it looks like a new one, in which nothing is active."""
    store, _ = with_refusal_active(tiny, tmp_path)
    with serving(tiny, None, store) as live:
        level = live.desk.active.level
        store.root.rename(tmp_path / "elsewhere")
        until(lambda: live.desk.trouble)
        assert live.chat().headers["x-llmpatch-level"] == level != "none"
        assert "is gone or empty" in live.http.get("/health").json()["trouble"]
        (tmp_path / "elsewhere").rename(store.root)
        until(lambda: not live.desk.trouble)


def test_administration_changes_no_other_base_of_the_store(tiny, tmp_path):
    store, mine = with_refusal_active(tiny, tmp_path)
    other = add(store, tmp_path, "acme/other")
    with serving(tiny, None, store) as live:
        wanted = {"patches": ["acme/other"], "skip_gate": True}
        assert live.http.post("/admin/activate", json=wanted, headers=BEARER).status_code == 400
        assert stores.load(store).state.active_digests == {mine}
        stores.activate(store, other, skip_gate=True)
        refused = live.http.post("/admin/rollback", headers=BEARER)
        assert (refused.status_code, "differs on another base" in refused.text) == (400, True)
        assert stores.load(store).state.active_digests == {mine, other}


def test_what_does_not_go_together_is_not_served(tiny, patches):
    newer = make_patch(tiny, "acme/first", version="1.1.0", seed=7)
    for given in ([patches["first"]] * 2, [patches["first"], newer]):
        with pytest.raises(UsageError, match=r"is there twice|two versions of one patch"), serving(tiny, given):
            pass
    with serving(tiny, [patches["first"]]) as live:
        live.desk.given += (newer,)
        refused = live.chat(patches=["acme/first@1.0.0", "acme/first@1.1.0"])
        assert (refused.status_code, "two versions of one patch" in refused.text) == (400, True)


def test_a_swap_ends_what_the_canary_said_of_the_set_before(tiny, patches):
    with serving(tiny, [patches["first"]]) as live:
        live.desk.given += (patches["second"],)
        live.desk.check = dataclasses.replace(live.desk.check, ok=False)
        assert live.chat().status_code == 503
        live.desk.activate(["acme/second"])
        assert live.desk.healthy
        assert live.chat().status_code == 200


def test_a_rollback_computes_anew_what_the_canary_has_let_go(tiny, patches):
    with serving(tiny, [patches["first"]]) as live:
        live.desk.given += (patches["second"],)
        before = live.desk.active
        live.desk.activate(["acme/second"])
        before.prefix.keys[0].zero_()
        assert live.desk.ask_canary().ok  # the set that is not active is let go
        live.desk.rollback()
        assert live.desk.active is not before
        assert live.chat().json()["choices"][0]["message"]["content"] == live.expected("Hi", [patches["first"]])


def test_a_rollback_does_not_bring_back_what_was_revoked(tiny, tmp_path):
    store = stores.Store(tmp_path / "store")
    digest = stores.install(store, save_patch(tmp_path, tiny, "acme/refusal", seed=1), stores.unsigned).digest
    other = stores.install(store, save_patch(tmp_path, tiny, "acme/tone", seed=2, fixed=(2,)), stores.unsigned).digest
    with serving(tiny, [stores.read_stored(store, digest)], store) as live:
        live.desk.activate(["acme/tone"])
        stores.revoke(store, digest, "found wanting")
        for name in ("acme/refusal", digest[:12]):
            asked = live.chat(patches=[name])
            assert (asked.status_code, "found wanting" in asked.text) == (403, True)
        with pytest.raises(UsageError, match="nothing to go back to"):
            live.desk.rollback()
        assert live.desk.active.patches.patches[0].digest == other


def test_rows_of_a_revoked_member_are_not_served(tiny, tmp_path):
    store = stores.Store(tmp_path / "store")
    part = stores.install(store, save_patch(tmp_path, tiny, "acme/part", seed=1), stores.unsigned).digest
    members = [
        {"name": f"acme/n{i}", "version": "1.0.0", "digest": d, "tokens": 2} for i, d in enumerate((part, "7" * 64))
    ]
    both = save_patch(tmp_path, tiny, "acme/both", seed=2, fixed=(2,), members=members)
    digest = stores.install(store, both, stores.unsigned).digest
    plain = stores.read_stored(
        store,
        stores.install(store, save_patch(tmp_path, tiny, "acme/plain", seed=3, fixed=(3,)), stores.unsigned).digest,
    )
    with serving(tiny, [plain], store) as live:
        assert live.chat(patches=["acme/both"]).status_code == 200
        live.desk.activate(["acme/both"])
        live.desk.activate(["acme/plain"])
        stores.revoke(store, part, "it leaks")
        for name in ("acme/both", digest[:12]):
            asked = live.chat(patches=[name])
            assert (asked.status_code, "it leaks" in asked.text) == (403, True)
        live.desk.rollback()  # over the set that holds it, to the one before
        assert live.desk.active.patches.patches[0].digest == plain.digest


def test_a_patch_named_twice_is_refused_and_levels_do_not_grow_without_end(tiny, patches, monkeypatch):
    monkeypatch.setattr("llmpatch.serving.metrics.MAX_LEVELS", 2)
    with serving(tiny, [patches["first"]]) as live:
        live.desk.given += (patches["second"],)
        assert live.chat(patches=["acme/first", "acme/first"]).status_code == 400
        for named in (
            ["acme/first"],
            ["acme/second"],
            ["acme/first", "acme/second"],
            ["acme/second", "acme/first"],
            [],
        ):
            assert live.chat(patches=named).status_code == 200
        lines = [line for line in live.http.get("/metrics").text.splitlines() if "llmpatch_answers_total{" in line]
        assert len(lines) == 3
        assert 'llmpatch_answers_total{level="other"} 3.0' in lines


def test_an_old_set_drains_while_the_new_one_answers(tiny, patches):
    with serving(tiny, [patches["first"]]) as live:
        live.desk.given += (patches["second"],)
        old = live.desk.active.level
        live.desk.ready([patches["second"]])
        with live.http.stream(
            "POST", "/v1/completions", json={"prompt": "abc", "max_tokens": 250, "ignore_eos": True, "stream": True}
        ) as response:
            lines = response.iter_lines()
            next(lines)
            hold = threading.Event()
            blocked = threading.Thread(target=live.engine.call, args=(lambda _: hold.wait(300),))
            blocked.start()
            live.desk.activate(["acme/second"])
            status = live.http.get("/admin/status", headers=BEARER).json()
            hold.set()
            assert status["draining"] == {old: 1}
            assert live.chat().headers["x-llmpatch-level"].startswith("acme/second")
            assert response.headers["x-llmpatch-level"] == old
            assert f'"system_fingerprint":"{old}"' in [line for line in lines if line][-2]
        assert live.http.post("/admin/rollback", headers=BEARER).json()["active"] == old
        assert live.http.post("/admin/rollback", headers=BEARER).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"authorization": "Bearer wrong"}, 401), ({"authorization": f"Basic {TOKEN}"}, 401), (BEARER, 200)],
)
def test_administration_takes_the_token(live, headers, status):
    assert live.http.get("/admin/status", headers=headers).status_code == status
    wanted = 400 if status == 200 else status
    answer = live.http.post("/admin/activate", json={"patches": ["acme/unknown"]}, headers=headers)
    assert answer.status_code == wanted


def test_administration_without_a_token_or_from_elsewhere_is_refused(tiny, monkeypatch):
    with serving(tiny, [], admin=Admin(None)) as live:
        assert live.http.get("/admin/status", headers=BEARER).status_code == 403
    with serving(tiny, []) as live, monkeypatch.context() as elsewhere:
        elsewhere.setattr("llmpatch.serving.admin._is_local", lambda request: False)
        assert live.http.get("/admin/status", headers=BEARER).status_code == 403


def test_tokens_that_can_be_guessed_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("LLMPATCH_ADMIN_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("LLMPATCH_ADMIN_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    path = tmp_path / "token"
    for text in ("", "short", "with a space in it, long"):
        path.write_text(text)
        with pytest.raises(UsageError, match="admin token"):
            read_token(path)
    path.write_text(f"{TOKEN}\nsecond line")
    assert read_token(path) == TOKEN


def damage(prefix) -> None:
    for keys in prefix.keys:
        keys.normal_()


def test_the_canary_finds_a_prefix_that_is_not_the_patchs_and_mends_it(tiny, patches):
    with serving(tiny, [patches["first"]]) as live:
        assert live.desk.ask_canary().ok
        wanted = live.chat().json()["choices"][0]["message"]["content"]
        ready = live.desk.active
        live.engine.call(lambda _: damage(ready.prefix))
        assert live.desk.ask_canary().ok
        assert live.desk.active is not ready
        assert live.chat().json()["choices"][0]["message"]["content"] == wanted


def test_a_swap_does_not_wait_for_the_canary(tiny, patches, monkeypatch):
    """Under load it takes seconds: each of its questions waits for a step of the engine."""
    from llmpatch.serving import desk as desks

    with serving(tiny, [patches["first"]]) as live:
        live.desk.given += (patches["second"],)
        asked, go, real = threading.Event(), threading.Event(), desks.probe

        def slow(*arguments):
            asked.set()
            assert go.wait(60)
            return real(*arguments)

        monkeypatch.setattr(desks, "probe", slow)
        canary = threading.Thread(target=live.desk.ask_canary)
        swap = threading.Thread(target=live.desk.activate, args=(["acme/second"],))
        canary.start()
        assert asked.wait(60)
        swap.start()
        swap.join(30)
        assert not swap.is_alive()
        assert live.chat().headers["x-llmpatch-level"].startswith("acme/second@")
        go.set()
        canary.join(60)
        assert live.desk.check.ok
        assert live.desk.active.level.startswith("acme/second@")


def test_sets_that_requests_name_hold_up_nobody_else(tiny, patches, monkeypatch):
    """Neither the active set's requests, nor a swap, nor what is ready; and no more than some may wait."""
    from llmpatch.serving import answering
    from llmpatch.serving import desk as desks

    monkeypatch.setattr(answering, "MAX_NAMING", 8)
    with serving(tiny, [patches["first"]], queue=64) as live, ThreadPoolExecutor(20) as clients:
        live.desk.given += (patches["second"], patches["third"])
        assert live.chat(patches=["acme/second"]).status_code == 200
        asked, go, real = threading.Event(), threading.Event(), desks.prepare

        def slow(engine, wanted, *rest):
            if len(wanted.patches) > 1:
                asked.set()
                assert go.wait(60)
            return real(engine, wanted, *rest)

        monkeypatch.setattr(desks, "prepare", slow)
        orders = [["acme/first", "acme/second"], ["acme/second", "acme/first"], ["acme/third", "acme/first"]]
        waiting = [clients.submit(live.chat, patches=orders[i % 3]) for i in range(12)]
        assert asked.wait(60)
        until(lambda: sum(one.done() for one in waiting) == 4)
        assert {one.result().status_code for one in waiting if one.done()} == {503}
        assert live.chat().headers["x-llmpatch-level"].startswith("acme/first@")
        assert live.chat(patches=["acme/second"]).headers["x-llmpatch-level"].startswith("acme/second@")
        assert live.http.get("/v1/models", timeout=20).status_code == 200
        live.desk.activate(["acme/third"])
        assert live.chat().headers["x-llmpatch-level"].startswith("acme/third@")
        go.set()
        assert sorted(one.result().status_code for one in waiting) == [200] * 8 + [503] * 4
        assert live.desk.naming == 0


def test_a_template_that_writes_the_time_does_not_fail_the_canary(patches):
    from tinymodels import make_tiny

    base = make_tiny()
    base.tokenizer.chat_template = "{{ strftime_now('%f') }}" + base.tokenizer.chat_template
    base.fingerprint  # noqa: B018
    with serving(base, []) as live:
        time.sleep(0.01)
        assert live.desk.ask_canary().ok
        assert live.desk.swapped == 0
        assert live.chat().status_code == 200


def test_the_canary_looks_at_what_rows_hold(tiny, patches):
    with serving(tiny, [patches["first"]]) as live:
        live.chat()
        ready = live.desk.active
        live.engine.call(lambda batch: batch.memory._layers[0].keys[0, :, 2].add_(1))
        assert live.desk.ask_canary().ok
        assert live.desk.active is not ready
        assert live.chat().json()["choices"][0]["message"]["content"] == live.expected("Hi", [patches["first"]])


def test_what_the_canary_cannot_mend_is_not_served(tiny, patches, monkeypatch):
    with serving(tiny, [patches["first"]], canary_seconds=0.05) as live:
        real = type(live.engine.batch.memory).make_prefix

        def broken(self, rows, head):
            made = real(self, rows, head)
            damage(made)
            return made

        monkeypatch.setattr(type(live.engine.batch.memory), "make_prefix", broken)
        live.engine.call(lambda _: damage(live.desk.active.prefix))
        until(lambda: live.http.get("/health").status_code == 503)
        refused = live.chat()
        assert (refused.status_code, "is not applied" in refused.json()["error"]["message"]) == (503, True)
        assert "llmpatch_healthy 0.0" in live.http.get("/metrics").text
        monkeypatch.undo()
        until(lambda: live.http.get("/health").status_code == 200)
        assert live.chat().status_code == 200


def test_a_patch_that_changes_nothing_does_not_pass_the_canary(tiny, patches, monkeypatch):
    with serving(tiny, []) as live:
        real = type(live.engine.batch.memory).make_prefix
        monkeypatch.setattr(
            type(live.engine.batch.memory), "make_prefix", lambda self, rows, head: real(self, None, head)
        )
        with pytest.raises(CanaryError, match="acme/first"):
            live.desk.ready([patches["first"]])
        level = live.desk.active.level
        refused = live.http.post("/v1/completions", json={"prompt": "a", "patches": ["acme/first"]})
        assert refused.status_code in (400, 503)
        assert live.desk.active.level == level == "none"


def test_a_patch_of_another_base_is_refused(tiny, tmp_path):
    store = stores.Store(tmp_path / "store")
    made = make_patch(tiny, "acme/other")
    path = save_patch(tmp_path, tiny, "acme/other")
    assert made.digest == stores.install(store, path, stores.unsigned).digest
    with serving(tiny, [], store) as live:
        assert "tiny@acme/other@1.0.0" in [m["id"] for m in live.http.get("/v1/models").json()["data"]]
        live.engine.base.tokenizer.chat_template, before = "{{ messages }}", live.engine.base.tokenizer.chat_template
        live.engine.base.__dict__.pop("fingerprint")
        try:
            refused = live.http.post("/v1/completions", json={"prompt": "a", "patches": ["acme/other"]})
        finally:
            live.engine.base.tokenizer.chat_template = before
            live.engine.base.__dict__.pop("fingerprint", None)
        assert (refused.status_code, "chat template" in refused.text) == (400, True)


def test_the_server_activates_nothing_that_a_revoked_key_signed(tiny, tmp_path, monkeypatch):
    """And reads the policy when it is asked, not when it starts."""
    store, key = stores.Store(tmp_path / "store"), "b" * 64
    path = save_patch(tmp_path, tiny, "acme/refusal", seed=1)
    stores.install(store, path, lambda given: dataclasses.replace(stores.unsigned(given), signer=key))
    monkeypatch.setenv("LLMPATCH_HOME", str(tmp_path))
    with serving(tiny, None, store) as live:
        wanted = {"patches": ["acme/refusal"], "skip_gate": True}
        policy = {"schema": "llmpatch/trust/v1", "vendors": [], "revoked": [key]}
        (tmp_path / "trust.json").write_text(json.dumps(policy), encoding="utf-8")
        refused = live.http.post("/admin/activate", json=wanted, headers=BEARER)
        assert (refused.is_error, f"was signed by key {key[:16]}" in refused.text) == (True, True)
        (tmp_path / "trust.json").write_text(json.dumps(policy | {"revoked": []}), encoding="utf-8")
        assert live.http.post("/admin/activate", json=wanted, headers=BEARER).is_success
