import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from llmpatch.prefix import backbone, prefix_cache, repeat_cache
from llmpatch.recipe import DecodingSection
from llmpatch.roomy_cache import RoomyLayer, with_room
from tinymodels import make_tiny


def states(batch, length, seed):
    found = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 2, length, 8, generator=found), torch.randn(batch, 2, length, 8, generator=found)


def test_it_holds_what_transformers_own_layer_holds():
    plain, roomy = DynamicLayer(), RoomyLayer(DynamicLayer(), 3)
    batch = 4
    for number, (length, keep) in enumerate([(5, None), (1, [0, 2, 3]), (1, None), (2, [1]), (4, None), (1, [0, 0])]):
        for layer in (plain, roomy):
            found = layer.update(*states(batch, length, number))
            assert found == (layer.keys, layer.values)
            if keep:
                layer.batch_select_indices(torch.tensor(keep))
        assert plain.get_seq_length() == roomy.get_seq_length()
        assert torch.equal(plain.keys, roomy.keys)
        assert torch.equal(plain.values, roomy.values)
        batch = len(plain.keys)


def test_a_token_is_written_where_there_is_room_and_nothing_is_copied():
    layer = RoomyLayer(DynamicLayer(), 2)
    layer.update(*states(1, 4, 0))
    place = layer.keys.data_ptr()
    for number in range(2):
        layer.update(*states(1, 1, number))
        assert layer.keys.data_ptr() == place
    layer.update(*states(1, 1, 3))
    assert layer.keys.data_ptr() != place
    assert layer.get_seq_length() == 7


@pytest.mark.parametrize("change", ["batch_repeat_interleave", "crop", "keys"])
def test_what_others_do_to_its_keys_is_not_lost(change):
    plain, roomy = DynamicLayer(), RoomyLayer(DynamicLayer(), 4)
    for layer in (plain, roomy):
        layer.update(*states(2, 5, 0))
        if change == "batch_repeat_interleave":
            layer.batch_repeat_interleave(2)
        elif change == "crop":
            layer.crop(-2)
        else:
            layer.keys, layer.values = states(2, 3, 9)
        layer.update(*states(len(layer.keys), 1, 1))
        layer.batch_select_indices(torch.tensor([1]))
    assert torch.equal(plain.keys, roomy.keys)
    assert torch.equal(plain.values, roomy.values)


def test_the_shared_cache_stays_as_it_is(tiny):
    with torch.no_grad():
        shared = prefix_cache(tiny, torch.randn(3, 32), [5, 6])
        before = shared.layers[0].keys.clone()
        cache = with_room(repeat_cache(shared, 2), 4)
        ids = torch.tensor([[7, 8], [9, 10]])
        backbone(tiny)(input_ids=ids, use_cache=True, **{tiny.cache_keyword: cache})
    assert torch.equal(shared.layers[0].keys, before)
    assert shared.get_seq_length() == 5
    assert cache.get_seq_length() == 7


def test_a_layer_whose_window_slides_stays_as_it_is():
    config = make_tiny("mistral", sliding_window=16).model.config
    cache = DynamicCache(config=config)
    before = list(cache.layers)
    assert with_room(cache, 2).layers == before
    assert before
    assert all(type(layer) is not DynamicLayer for layer in before)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("prefix", [None, 3])
def test_answers_are_those_of_a_cache_without_room(family, prefix, monkeypatch):
    """Long enough that a sliding window forgets and rows leave the batch one by one."""
    from llmpatch import generation, roomy_cache

    changes = {"sliding_window": 16} if family != "llama" else {}
    base = make_tiny(family, **changes)
    rows = None if prefix is None else torch.randn(prefix, 32)
    prompts = ["a", "some longer prompt", "b c", "and the fourth of them"]
    decoding = DecodingSection(max_new_tokens=24, temperature=1.0)
    found = [sorted(generation.generate(base, prompts, decoding=decoding, prefix=rows, samples=2))]
    kinds = {type(layer) for layer in with_room(DynamicCache(config=base.model.config), 2).layers}
    assert RoomyLayer in kinds
    monkeypatch.setattr(roomy_cache, "with_room", lambda cache, room: cache)
    found.append(sorted(generation.generate(base, prompts, decoding=decoding, prefix=rows, samples=2)))
    assert found[0] == found[1]
    assert len({answer.text for _, answers in found[0] for answer in answers}) > 2
