"""Passages of running texts: what is fed, what is predicted, which rows a readout takes, and what is left out."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pythiageo.geometry.bootstrap import Bootstrap
from pythiageo.geometry.readout import find_places
from pythiageo.measurement.probe_sets import GEOMETRY, SCORE, Prepared, Probe, describe_probes, prepare
from pythiageo.probes.cut_passages import cut_passages, pack_passages
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.probes.kinds import Item, ItemLevel, ItemTask
from pythiageo.probes.passages import Passages
from pythiageo.probes.probeset import make_probe_set
from pythiageo.probes.tokenizer import BOS, EOS, encode

TEXTS = ["ABCDEFGH", "IJ", "KLMNOP"]


def text_task(levels: dict[str, list[str]]) -> ItemTask:
    found = {name: ItemLevel(items=tuple(Item(text=text) for text in texts)) for name, texts in levels.items()}
    return ItemTask(name="t", version=1, kind="items", rule="text", description="", source="", levels=found)


def prepared(passages: Passages | None, levels: dict[str, list[str]] | None = None, context: int | None = None,
             purpose: str = GEOMETRY) -> Prepared:  # fmt: skip
    task = text_task(levels or {"L1": TEXTS})
    count = sum(len(level.items) for level in task.levels.values())
    probe_set = make_probe_set(task, "mixed" if levels else "L1", count, 0, passages=passages)
    return prepare([Probe(probe_set, purpose)], CharacterTokenizer(), context, strict=False)[0]


def fed(one: Prepared) -> list[int]:
    return [token for encoded in one.encoded for token in encoded.ids]


def last_tokens(one: Prepared) -> list[int]:
    places = find_places(one.layout, "last")
    assert places is not None
    return [fed(one)[place] for place in places]


@given(st.integers(2, 60), st.integers(2, 20), st.data())
def test_strided_passages_hold_every_token_and_predict_each_after_the_first_once(
    length: int, tokens: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, tokens - 1))
    ids = list(range(length))
    found = cut_passages(ids, Passages("stride", tokens, stride))
    starts = [one.ids[0] for one in found]
    assert starts == [stride * number for number in range(len(found))]
    assert all(one.ids == tuple(ids[one.ids[0] : one.ids[0] + tokens]) for one in found)
    assert found[-1].ids[-1] == length - 1
    assert all(one.ids[-1] < length - 1 for one in found[:-1])
    assert list(chain.from_iterable(one.targets for one in found)) == ids[1:]
    for one in found:
        assert [one.ids[place] + 1 for place in one.answer_positions] == list(one.targets)


@given(st.lists(st.integers(2, 9), min_size=1, max_size=8), st.integers(2, 12), st.sampled_from([None, 0]))
def test_packed_passages_are_the_stream_cut_into_equal_parts(lengths: list[int], tokens: int, end: int | None) -> None:
    texts = [[100 * (number + 1) + place for place in range(length)] for number, length in enumerate(lengths)]
    stream: list[int] = []
    for text in texts:
        stream += [end] * bool(stream and end is not None) + text
    found, begins, rest = pack_passages(texts, tokens, end)
    whole = len(stream) // tokens * tokens
    assert list(chain.from_iterable(one.ids for one in found)) == stream[:whole]
    assert rest == len(stream) - whole
    assert all(len(one.ids) == tokens and one.targets == one.ids[1:] for one in found)
    assert all(one.ids[0] == end or begin == one.ids[0] // 100 - 1 for one, begin in zip(found, begins, strict=True))


def test_a_truncated_text_is_fed_to_its_last_token_and_the_rest_is_counted() -> None:
    found = prepared(Passages("truncate", 5))
    assert [len(one.ids) for one in found.encoded] == [5, 4, 5]
    # [BOS] A B C D of ten tokens; [BOS] I J [EOS], whole, its last token too; [BOS] K L M N of eight
    assert last_tokens(found) == [encode("D")[0], EOS, encode("N")[0]]
    assert found.passages is not None
    assert (found.passages.tokens, found.passages.left_out, found.passages.shortened) == (22, 8, 2)
    assert found.cuts == "truncate at 5 tokens: 8 of 22 tokens left out, of 2 texts"
    assert (found.kept, found.owner, found.left_out) == ((0, 1, 2), None, ())
    # today's way feeds all but the last token, so that its last position is another
    assert last_tokens(prepared(None)) == [encode("H")[0], encode("J")[0], encode("P")[0]]


def test_packed_texts_are_of_one_level_and_what_is_left_at_the_end_is_counted() -> None:
    found = prepared(Passages("pack", 6), {"L1": ["ABCD", "EFGH"], "L2": ["IJ", "KLMNOPQ"]})
    rows = [one.ids for one in found.encoded]
    assert rows[0] == (BOS, *encode("ABCD"), EOS)
    assert rows[1] == (BOS, *encode("EFGH"), EOS)
    assert rows[2] == (BOS, *encode("IJ"), EOS, BOS, *encode("K"))
    assert len(rows) == 4 - 1 + (13 - 6) // 6
    assert last_tokens(found)[:3] == [EOS, EOS, encode("K")[0]]
    levels = [found.probe.probe_set.levels[place] for place in found.kept]
    assert levels == ["L1", "L1", "L2", "L2"]
    assert found.passages is not None
    assert (found.passages.tokens, found.passages.left_out, found.passages.shortened) == (25, 1, 1)


def test_passages_of_one_text_stay_together_in_the_bootstrap() -> None:
    found = prepared(Passages("stride", 4, 2))
    assert found.owner == (0, 0, 0, 0, 1, 2, 2, 2)
    assert last_tokens(found) == [*encode("CEG"), EOS, EOS, *encode("MO"), EOS]
    draws = Bootstrap(found.layout, "ab", 50, owner=found.owner).rows("last")
    for drawn in draws:
        counts = np.bincount(drawn.numpy(), minlength=8)
        by_text = [set(counts[np.array(found.owner) == text]) for text in range(3)]
        assert all(len(one) == 1 for one in by_text)
        assert sum(one.pop() for one in by_text) == 3
    alone = Bootstrap(found.layout, "ab", 50).rows("last")
    assert {len(drawn) for drawn in alone} == {8}


def test_a_passage_that_the_model_cannot_take_leaves_its_text_out() -> None:
    found = prepared(Passages("truncate", 8), context=7)
    assert [item.number for item in found.left_out] == [1, 3]
    assert found.loss is not None
    assert "a passage takes 8 positions, but the model's context is 7: lower probes.text_tokens" in found.loss
    assert not prepared(Passages("pack", 8), context=7).kept
    short = prepared(Passages("pack", 99))
    assert short.loss is not None
    assert "its level's texts have 22 tokens together, and a passage has 99" in short.loss


def test_the_way_is_part_of_the_hash_and_of_the_manifest_and_only_of_running_text() -> None:
    ways = [None, Passages("truncate", 5), Passages("truncate", 6), Passages("pack", 5), Passages("stride", 5, 2)]
    sets = [prepared(way).probe.probe_set for way in ways]
    assert len({one.sha for one in sets}) == len(ways)
    said = [describe_probes([Probe(one, SCORE)])[0].get("passages") for one in sets]
    assert said[0] is None
    assert said[-1] == {"way": "stride", "tokens": 5, "stride": 2}
    words = ItemTask(name="t", version=1, kind="items", description="", source="",
                     levels={"L1": ItemLevel(chance=0.5, items=(Item(prompt="a ", answer="b"),))})  # fmt: skip
    assert make_probe_set(words, "L1", 1, 0, passages=ways[1]).sha == make_probe_set(words, "L1", 1, 0).sha


def test_a_score_of_passages_is_that_of_the_tokens_in_them() -> None:
    """A bigram table stands for the model: its log-probabilities are looked up by hand."""
    table = torch.randn(41, 41, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(1)
    for way in (Passages("truncate", 5), Passages("stride", 4, 2)):
        found = prepared(way, purpose=SCORE)
        for text in range(3):
            ids = [BOS, *encode(TEXTS[text]), EOS]
            ids = ids[:5] if way.way == "truncate" else ids
            wanted = sum(float(table[a, b]) for a, b in pairwise(ids))
            owner = found.owner or range(3)
            own = [one for one, of in zip(found.encoded, owner, strict=True) if of == text]
            pairs = [(one.ids[p], t) for one in own for p, t in zip(one.answer_positions, one.targets, strict=True)]
            assert sum(float(table[pair]) for pair in pairs) == pytest.approx(wanted)
