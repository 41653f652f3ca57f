"""Indexes: exact against numpy and the evaluator, HNSW's recall, Milvus by its embedded form."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cqr.errors import UserError
from cqr.search import gallery as galleries
from cqr.search.indexes import build_index, exact, open_index
from cqr.search.metadata import matching
from cqr.trainer.ranking import metrics

NONE = np.empty(0, np.int64)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(size, dim, centres, seed, number=1):
    """`number` sets of vectors around the same centres."""
    rng = np.random.default_rng(seed)
    middles = unit(rng.normal(size=(centres, dim)))
    noise = [rng.normal(size=(size, dim)) / np.sqrt(dim) for _ in range(number)]
    return [unit(middles[rng.integers(0, centres, size)] + n) for n in noise]


@pytest.fixture
def write(tmp_path):
    """A function that writes a gallery of vectors; its metadata are the row and its parity."""

    def make(vectors, extends="", metadata=True):
        row = np.arange(len(vectors))
        table = pd.DataFrame({"path": [f"{i}.jpg" for i in row]})
        if metadata:
            known = pd.array(np.where(row % 7, row, 0), "Int64")
            known[::7] = pd.NA  # every seventh is not known
            table["number"] = known
            table["parity"] = pd.array(np.where(row % 2, "odd", "even"), "string")
        file = tmp_path / "index" / galleries.NAME
        vectors = np.asarray(vectors, np.float16)
        return galleries.write(file, {"weights": "w"}, table, vectors, extends=extends)

    return make


def by_hand(vectors, query, k, allowed):
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    order = sorted(np.flatnonzero(allowed), key=lambda row: (-np.float32(scores[row]), row))
    return order[:k]


@pytest.mark.parametrize(
    ("size", "k"), [(1, 1), (1, 5), (9, 9), (300, 10), (9000, 50), (9000, 9000)]
)
def test_exact_search_is_what_numpy_finds_one_by_one(write, size, k):
    vectors, queries = clustered(size, 16, 3, seed=size, number=2)
    g = write(vectors)
    excluded = [np.arange(0, size, 3), NONE, np.array([size - 1])][: len(queries)]
    queries = queries[: len(excluded)]
    rows, scores = exact.Exact(g).search(queries, k, excluded)
    for number, query in enumerate(queries):
        allowed = np.ones(size, bool)
        allowed[excluded[number]] = False
        expected = by_hand(g.vectors, query, k, allowed)
        assert rows[number, : len(expected)].tolist() == expected
        assert (rows[number, len(expected) :] == -1).all()
        assert np.isnan(scores[number, len(expected) :]).all()
        np.testing.assert_allclose(
            scores[number, : len(expected)], g.vectors[expected].astype(float) @ query, atol=1e-6
        )


def test_exact_search_ranks_as_the_evaluator_does(write):
    vectors, queries = clustered(2000, 32, 40, seed=1, number=2)
    vectors[1500:] = vectors[:500]  # equal vectors rank in gallery order
    g = write(vectors)
    reference = np.where(np.arange(2000) % 2, np.arange(2000), -1)
    ranked = metrics.rank(
        torch.from_numpy(queries),
        torch.from_numpy(g.vectors.astype(np.float32)),
        reference,
        [NONE] * 2000,
        depth=20,
    )
    excluded = [np.array([r]) if r >= 0 else NONE for r in reference]
    rows, scores = exact.Exact(g).search(queries, 20, excluded)
    np.testing.assert_array_equal(rows, ranked.top)
    np.testing.assert_allclose(scores, ranked.scores, atol=1e-6)


def test_equal_vectors_rank_in_gallery_order_however_many(write):
    g = write(np.tile(unit(np.ones((1, 33))), (10_000, 1)))
    rows, scores = exact.Exact(g).search(unit(np.ones((1, 33))), 7, [np.array([1])])
    assert rows.tolist() == [[0, 2, 3, 4, 5, 6, 7]]
    assert len(set(scores[0].tolist())) == 1


@pytest.fixture
def hnsw():
    pytest.importorskip("faiss", reason="pip install 'cqr[index]'")
    from cqr.search.indexes import hnsw

    return hnsw


def build(g):
    return build_index("hnsw", g, lambda done, total: None)


@pytest.mark.usefixtures("hnsw")
def test_hnsw_finds_nearly_all_of_the_best_ten(write):
    vectors, queries = clustered(6000, 64, 60, seed=2, number=2)
    g = write(vectors)
    threads = torch.get_num_threads()
    build(g)
    assert torch.get_num_threads() == threads  # faiss' OpenMP may be PyTorch's, too
    queries, none = queries[:200], [NONE] * 200
    found, scores = open_index("hnsw", g).search(queries, 10, none)
    right, right_scores = exact.Exact(g).search(queries, 10, none)
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, right, strict=True)])
    assert recall >= 0.99
    same = found == right
    np.testing.assert_array_equal(scores[same], right_scores[same])  # one score, whoever finds it


def test_hnsw_compares_whole_numbers(write, hnsw):
    vectors, queries = clustered(3000, 64, 30, seed=5, number=2)
    g, queries = write(vectors), queries[:100].astype(np.float32)
    build(g)
    index = open_index("hnsw", g)
    asked = np.rint(127 * queries / np.abs(queries).max(1, keepdims=True))
    products, rows = index._graph.search(asked, 20)
    stored = np.rint(g.vectors.astype(np.float64) * 127).clip(-127, 127)  # 8 / sqrt(64) is 1
    np.testing.assert_array_equal(products, (stored[rows] @ asked[..., None])[..., 0])
    np.testing.assert_array_equal(hnsw._asked(queries, True), asked)
    found, scores = index.search(np.zeros((1, 64), np.float32), 2, [NONE])
    assert (found >= 0).all()
    assert (scores == 0).all()


@pytest.mark.parametrize("wide", [1, 3, 9])
def test_hnsw_finds_where_a_dimension_is_larger_than_all_others(write, hnsw, wide):
    """As one of CLIP's is, which is not about nothing either."""
    (vectors,) = clustered(3100, 256, 30, seed=5)
    sizes = np.where(np.arange(256) == 3, wide, 1)
    vectors = unit(vectors * sizes + sizes / 9)
    g, queries = write(vectors[100:]), vectors[:100].astype(np.float32)
    build(g)
    index = open_index("hnsw", g)
    assert index._whole == (wide < 9)
    found, _ = index.search(queries, 10, [NONE] * 100)
    right, _ = exact.Exact(g).search(queries, 10, [NONE] * 100)
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, right, strict=True)])
    assert recall >= 0.97


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked of Linux alone")
def test_a_graph_of_many_questions_lies_on_large_pages(write, hnsw, monkeypatch):
    vectors, queries = clustered(8_500, 512, 85, seed=8, number=2)
    g, queries = write(vectors), queries[:3].astype(np.float32)
    build(g)
    index, asked = open_index("hnsw", g), []
    libc = SimpleNamespace(madvise=lambda *a: asked.append([getattr(x, "value", x) for x in a]))
    monkeypatch.setattr(hnsw.ctypes, "CDLL", lambda name: libc)
    first = index.search(queries, 10, [NONE] * 3)
    assert not asked
    again = index.search(queries, 10, [NONE] * 3)
    faiss = hnsw.import_faiss()
    codes = faiss.downcast_index(index._graph.storage).codes
    begin, size = asked[0][:2]
    assert begin % 2**21 == size % 2**21 == 0
    assert int(codes.data()) <= begin < begin + size <= int(codes.data()) + codes.size()
    assert codes.size() - size < 2**22
    assert [one[2] for one in asked] == [14, 25]  # the links are less than two such pages
    index.search(queries, 10, [NONE] * 3)
    assert len(asked) == 2
    monkeypatch.undo()
    hnsw._to_large_pages(faiss, index._graph)
    for found in (again, index.search(queries, 10, [NONE] * 3)):
        np.testing.assert_array_equal(found, first)


def test_a_graph_of_fractions_is_asked_and_gone_on_with(write, hnsw, monkeypatch):
    """All graphs were such before there were whole numbers."""
    (vectors,) = clustered(1200, 32, 20, seed=6)
    monkeypatch.setattr(hnsw, "_even", lambda vectors: False)
    first = write(vectors[:1000])
    build(first)
    monkeypatch.undo()
    assert not open_index("hnsw", first)._whole
    g = write(vectors, extends=first.id)
    build(g)
    index, queries = open_index("hnsw", g), vectors[1000:].astype(np.float32)
    assert not index._whole
    found, _ = index.search(queries, 1, [NONE] * 200)
    assert np.mean(found[:, 0] == np.arange(1000, 1200)) >= 0.99


@pytest.mark.usefixtures("hnsw")
def test_hnsw_leaves_out_what_is_excluded_and_still_gives_k(write):
    vectors, queries = clustered(4000, 32, 10, seed=3, number=2)
    g = write(vectors)
    build(g)
    best, _ = exact.Exact(g).search(queries[:5], 30, [NONE] * 5)
    rows, _ = open_index("hnsw", g).search(queries[:5], 10, list(best))
    assert (rows >= 0).all()
    assert not any(np.isin(*pair).any() for pair in zip(rows, best, strict=True))


@pytest.mark.usefixtures("hnsw")
def test_hnsw_answers_a_condition_exactly(write):
    vectors, queries = clustered(3000, 32, 10, seed=4, number=2)
    g = write(vectors)
    build(g)
    where = 'parity == "odd" and number < 900'
    found = open_index("hnsw", g).search(queries[:9], 8, [NONE] * 9, where)
    right = exact.Exact(g).search(queries[:9], 8, [NONE] * 9, where)
    np.testing.assert_array_equal(found[0], right[0])
    assert (found[0] % 2 == 1).all()
    assert found[0].max() < 900


def test_more_pictures_are_added_to_the_graph_that_is_there(write, hnsw, monkeypatch):
    vectors, queries = clustered(5000, 32, 50, seed=5, number=2)
    first = write(vectors[:4000])
    build(first)
    added = []
    index = hnsw.import_faiss().IndexHNSWSQ
    plain = index.add

    def add(self, vectors):
        added.append((self.ntotal, len(vectors)))
        return plain(self, vectors)

    monkeypatch.setattr(index, "add", add)
    grown = write(vectors, extends=first.id)
    build(grown)
    assert added == [(4000, 1000)]
    assert not hnsw.file_of(first).exists()
    rows, _ = open_index(None, grown).search(queries[:100], 10, [NONE] * 100)
    right, _ = exact.Exact(grown).search(queries[:100], 10, [NONE] * 100)
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(rows, right, strict=True)])
    assert recall >= 0.99
    assert (rows >= 4000).any()


def test_an_interrupted_build_goes_on(write, hnsw, monkeypatch):
    (vectors,) = clustered(3000, 16, 50, seed=6)
    g = write(vectors)
    monkeypatch.setattr(hnsw, "BLOCK", 500)
    monkeypatch.setattr(hnsw, "SAVE_EVERY", 0.0)
    seen = []

    def stop(done, total):
        seen.append(done)
        if done == 1500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index("hnsw", g, stop)
    assert not hnsw.file_of(g).exists()
    with pytest.raises(UserError, match=r"no HNSW index .* as it is now"):
        open_index("hnsw", g)
    assert open_index(None, g).name == "exact"  # a half one is not taken
    build_index("hnsw", g, lambda done, total: seen.append(done))
    assert seen == [0, 500, 1000, 1500, 1500, 2000, 2500, 3000]
    assert {file.name for file in g.folder.glob("hnsw-*")} == {
        f"hnsw-{g.id}.faiss",
        f"hnsw-{g.id}.faiss.sha256",
    }
    assert open_index(None, g).name == "hnsw"


def flipped(file, at):
    content = bytearray(file.read_bytes())
    content[at % len(content)] ^= 0x40
    file.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(file.read_bytes()[:1000]),
        lambda file: flipped(file, 3000),  # faiss opens it; a search may end the process
        lambda file: flipped(file, -1),
        lambda file: file.with_name(f"{file.name}.sha256").unlink(),
        lambda file: file.with_name(f"{file.name}.sha256").write_bytes(b"\xff"),
    ],
)
def test_a_damaged_graph_is_said_and_not_opened(write, hnsw, spoil, caplog):
    vectors, queries = clustered(500, 16, 5, seed=7, number=2)
    g = write(vectors)
    build(g)
    spoil(hnsw.file_of(g))
    with pytest.raises(UserError, match=r"is damaged .*: build it again with `cqr index"):
        open_index("hnsw", g)
    meanwhile = open_index(None, g)
    assert meanwhile.name == "exact"
    assert "is damaged" in caplog.text
    assert "the exact search answers" in caplog.text
    rows, _ = meanwhile.search(queries[:3], 5, [NONE] * 3)
    assert (rows >= 0).all()
    build(g)
    assert open_index(None, g).name == "hnsw"


@pytest.mark.parametrize("what", ["rows", "dimensions", "links", "kind"])
def test_a_graph_that_is_not_of_the_gallery_is_not_asked_and_made_anew(write, hnsw, what):
    (vectors,) = clustered(500, 16, 5, seed=7)
    g = write(vectors)
    faiss = hnsw.import_faiss()
    if what == "kind":
        graph = faiss.IndexFlatIP(16)
    else:
        graph = faiss.IndexHNSWSQ(
            8 if what == "dimensions" else 16, faiss.ScalarQuantizer.QT_8bit, 16
        )
        graph.train(vectors[:, : graph.d].astype(np.float32))
    graph.add(vectors[: 400 if what == "rows" else 500, : graph.d].astype(np.float32))
    if what == "links":
        links = faiss.vector_to_array(graph.hnsw.neighbors)
        links[3] = 500
        faiss.copy_array_to_vector(links, graph.hnsw.neighbors)
    hnsw._save(faiss, graph, hnsw.file_of(g))
    said = r"(is not of|cannot be opened \(HNSW neigh).*: build it again with `cqr index"
    with pytest.raises(UserError, match=said):
        open_index("hnsw", g)
    assert open_index(None, g).name == "exact"
    build(g)
    assert open_index(None, g).name == "hnsw"


def test_a_graph_of_version_0_1_is_told_and_made_anew(write, hnsw, caplog):
    vectors, queries = clustered(500, 16, 5, seed=7, number=2)
    g = write(vectors)
    old = g.folder / f"hnsw-{g.id}.usearch"
    old.write_bytes(b"usearch")
    meanwhile = open_index(None, g)
    assert meanwhile.name == "exact"
    assert "is of an earlier cqr: `cqr index` builds it anew" in caplog.text
    assert build_index(None, g, lambda done, total: None) == "hnsw"  # as there was one
    assert not old.exists()
    right, _ = meanwhile.search(queries[:20], 5, [NONE] * 20)
    found, _ = open_index(None, g).search(queries[:20], 5, [NONE] * 20)
    np.testing.assert_array_equal(found, right)


@pytest.fixture
def milvus(tmp_path):
    pytest.importorskip("pymilvus", reason="pip install 'cqr[milvus]'")
    pytest.importorskip("milvus_lite", reason="pip install 'cqr[milvus]'")
    return f"milvus://{tmp_path}/held.db/photos"


def test_milvus_finds_nearly_what_exact_search_finds_and_nothing_that_must_not_be(write, milvus):
    vectors, queries = clustered(400, 16, 5, seed=8, number=2)
    g = write(vectors)
    with pytest.raises(UserError, match=r"does not hold .* as it is now"):
        open_index(milvus, g)
    build_index(milvus, g, lambda done, total: None)
    ours, theirs = exact.Exact(g), open_index(milvus, g)
    excluded = [np.arange(0, 400, 5), *[NONE] * 19]
    for where in (
        None,
        'parity == "odd"',
        "number < 100 and not parity == 'even'",
        "not number > 100",  # what is not known meets neither a condition nor its contrary
        "number in [1, 2, 3] or number not in [4]",
        "number in [-1, 396, 3] or parity == 'even' and number >= 1.5",
        "number != 5 or parity != 'odd'",
    ):
        mine = ours.search(queries[:20], 10, excluded, where)
        found = theirs.search(queries[:20], 10, excluded, where)
        assert (found[0] == mine[0]).mean() > 0.9, where  # its own index is approximate
        assert (found[0] >= 0).all()
        assert (found[0][0] % 5 > 0).all()
        if where:
            assert matching(where, g.metadata)[found[0]].all()
        same = found[0] == mine[0]
        np.testing.assert_array_equal(found[1][same], mine[1][same])


def test_a_milvus_collection_is_brought_up_to_date(write, milvus):
    vectors, queries = clustered(90, 16, 5, seed=9, number=2)
    sent = []
    build_index(milvus, write(vectors[:60], metadata=False), lambda d, total: sent.append(total))
    grown = write(vectors, metadata=False)
    with pytest.raises(UserError, match="as it is now"):
        open_index(milvus, grown)
    build_index(milvus, grown, lambda done, total: sent.append(total))
    assert max(sent[:2]) == 60
    assert sent[-1] == 30  # only what is new
    shrunk = write(vectors[:50], metadata=False)
    build_index(milvus, shrunk, lambda done, total: sent.append(total))
    assert sent[-1] == 0
    rows, _ = open_index(milvus, shrunk).search(queries[:1], 90, [NONE])
    assert sorted(rows[0][rows[0] >= 0]) == list(range(50))


def test_a_collection_of_somebody_else_is_left_alone(write, milvus):
    from pymilvus import MilvusClient

    client = MilvusClient(milvus.removeprefix("milvus://").rpartition("/")[0])
    client.create_collection("photos", dimension=8)
    client.close()
    with pytest.raises(UserError, match="was not made by cqr: name another collection"):
        build_index(milvus, write(np.eye(16)), lambda done, total: None)


@pytest.mark.parametrize("name", ["nearest", "milvus://", "milvus://host:1/no-name", ""])
def test_an_index_that_does_not_exist_is_said(write, name):
    g = write(np.eye(3))
    for function in (lambda: open_index(name, g), lambda: build_index(name, g, print)):
        with pytest.raises(UserError, match=r"is not (exact|milvus://HOST:PORT/COLLECTION)"):
            function()


def test_without_the_extra_it_says_how_to_have_it(write, monkeypatch):
    import sys

    for module in ("faiss", "pymilvus"):
        monkeypatch.setitem(sys.modules, module, None)
    g = write(np.eye(3))
    for name, extra in (("hnsw", "index"), ("milvus://x:1/a", "milvus")):
        with pytest.raises(UserError, match=rf"pip install 'cqr\[{extra}\]'"):
            open_index(name, g)


@pytest.mark.parametrize(
    ("size", "width"), [(1, 96), (100_000, 96), (1_000_000, 144), (10_000_000, 216)]
)
def test_a_graph_is_searched_half_as_widely_again_each_tenfold(hnsw, size, width):
    assert hnsw.search_width(size) == width
