import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featvis import zoo
from featvis.errors import InputError
from featvis.weights import sources
from featvis.weights.hub import Hub, HubRecord, is_hub, parse_hub, split_hub
from featvis.weights.sources import Download, Local, Package

COMMIT = "1234567890" * 4
SHA256 = "abcdef01" * 8
HUB = Hub("someone/net", licence="MIT")
RECORD = HubRecord("someone/net", "model.safetensors", "main", COMMIT, SHA256)

ALL = [
    Download("https://example.org/net-abcdef01.pth", "abcdef01", licence="MIT"),
    HUB,
    Local("net.npz", "made by hand", licence="MIT"),
    Package("net-model", "net_model", "models/net.pth", SHA256, licence="MIT"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path)
    path = tmp_path / "weights" / "toy"
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("source", ALL, ids=lambda source: type(source).__name__)
def test_a_source_says_how_to_get_its_file(source, folder):
    assert source.find("toy") is None
    if isinstance(source, Package):
        assert source.by_hand("toy") == "pip install net-model"
        return
    assert str(folder) in source.by_hand("toy")
    assert source.file in source.by_hand("toy")
    path = folder / source.file
    path.touch()
    assert source.find("toy") == path
    assert source.find("other") is None
    assert source.at(path) == source


@pytest.mark.parametrize("digest", ["", "abc", "ABCDEF01", "abcdefgh", "a" * 65, " abcdef01"])
def test_what_is_no_sha256(digest):
    with pytest.raises(InputError, match=r"example\.org/x.*is no SHA-256"):
        Download("https://example.org/x", digest, licence="MIT")
    with pytest.raises(InputError, match="is no SHA-256"):
        Hub("someone/net", digest=digest, licence="MIT")


def test_the_zoo_s_sources_have_names_of_their_own():
    for entry in zoo.entries().values():
        assert entry.sources
        names = [source.file for source in entry.sources]
        assert len(set(names)) == len(names)
        assert all(source.licence for source in entry.sources)


WORDS = st.sampled_from(["a", "b", "-", "--", "@", "%", "%2D", ".", "_", "A"])
NAMES = st.lists(WORDS, min_size=1, max_size=4).map("".join)
HUBS = st.builds(
    lambda owner, name, revision, path: Hub(
        f"{owner}/{name}", "/".join(path), revision, licence="MIT"
    ),
    NAMES.filter(lambda name: "@" not in name),
    NAMES.filter(lambda name: "@" not in name),
    st.sampled_from(["main", "refs/pr/4", "refs", "a-", "-a", "a--b"]),
    st.lists(st.one_of(NAMES, st.sampled_from(["x.json", "x", "x.part"])), min_size=1, max_size=3),
)


@given(HUBS, HUBS)
def test_two_files_of_the_hub_never_share_a_name(one, other):
    assert (one.file == other.file) == (one == other)
    beside = {one.file + end for end in (".json", ".lock", ".part", ".part.json", ".new")}
    assert other.file not in beside
    assert "/" not in one.file


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Hub("a--b/c", licence="x"), Hub("a/b--c", licence="x")),
        (Hub("a/b", "c/d.npz", licence="x"), Hub("a/b", "c--d.npz", licence="x")),
        (Hub("a/b-", "-c", licence="x"), Hub("a/b--", "c", licence="x")),
        (Hub("a/b", "4/x", "refs/pr", licence="x"), Hub("a/b", "x", "refs/pr/4", licence="x")),
        (Hub("a/b", "x" * 300 + "1", licence="x"), Hub("a/b", "x" * 300 + "2", licence="x")),
    ],
)
def test_names_that_were_the_same(one, other):
    assert one.file != other.file
    assert len(one.file) < 220


def test_a_record_of_another_file(folder):
    path = recorded(folder, RECORD.text())
    assert HUB.find("toy") == path
    for change in ({"repository": "a/b"}, {"path": "x"}, {"revision": COMMIT}):
        HubRecord.place(path).write_text(dataclasses.replace(RECORD, **change).text())
        assert HUB.find("toy") is None
        assert HUB.at(path) == HUB


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://a/b/x.pth", ("hf://a/b/x.pth", "")),
        ("hf://a/b@main/x.pth#ema", ("hf://a/b@main/x.pth", "ema")),
        ("hf://a/b/x%23y.pth#ema/model", ("hf://a/b/x#y.pth", "ema/model")),
    ],
)
def test_a_part_of_a_file_of_the_hub(text, expected):
    assert split_hub(text) == expected


def test_no_part_of_a_file_of_the_hub():
    with pytest.raises(InputError, match="names no part"):
        split_hub("hf://a/b/x.pth#")


# ---- what was recorded of a file of the hub ------------------------------------------------


def recorded(folder, text):
    path = folder / HUB.file
    path.touch()
    HubRecord.place(path).write_text(text)
    return path


def test_a_record_names_the_commit(folder):
    path = recorded(folder, RECORD.text())
    assert HubRecord.read(path) == RECORD
    assert HUB.origin == "hf://someone/net@main/model.safetensors"
    assert HUB.at(path).origin == f"hf://someone/net@{COMMIT}/model.safetensors"
    assert HUB.at(path).sha256 == SHA256


def test_what_is_pinned_stays(folder):
    path = recorded(folder, RECORD.text())
    pinned = dataclasses.replace(HUB, revision="0" * 40, digest="1" * 64)
    assert pinned.at(path) == pinned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        RECORD.text().replace(COMMIT, "main"),
        RECORD.text().replace(SHA256, SHA256[:8]),
        RECORD.text().replace(f'"{COMMIT}"', "1"),
        RECORD.text().replace('"path"', '"paths"'),
        "\0\xff",
    ],
)
def test_a_damaged_record_is_none(folder, text):
    assert HUB.at(recorded(folder, text)) == HUB


# ---- a user's file of the hub --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "repository", "revision", "path"),
    [
        ("hf://a/b/model.safetensors", "a/b", "main", "model.safetensors"),
        ("hf://a/b@v1.0/x.npz", "a/b", "v1.0", "x.npz"),
        (f"hf://timm/r.tv_in1k@{COMMIT}/f/x.pth", "timm/r.tv_in1k", COMMIT, "f/x.pth"),
        ("hf://a/b@refs/pr/4/x.npz", "a/b", "refs/pr/4", "x.npz"),
        ("hf://models/a/b@main/x.npz", "a/b", "main", "x.npz"),
        ("hf://a/b/with space@2.npz", "a/b", "main", "with space@2.npz"),
    ],
)
def test_parse_hub(text, repository, revision, path):
    found = parse_hub(text)
    assert (found.repository, found.revision, found.path) == (repository, revision, path)
    assert found.sha256 is None
    assert "/" not in found.file
    if not text.startswith("hf://models/"):
        assert parse_hub(found.origin) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf://",
        "hf://a",
        "hf://a/b",
        "hf://a/b@main",
        "hf://a/b@/x.npz",
        "hf://a/b/",
        "hf://a/b//x",
        "hf://a/b/../x",
        "hf://a/b/x/..",
        "hf://a/../x",
        "hf://../b/x",
        "hf://a/b@../x",
        "hf://a/b/x\\y",
        "hf://a/b/x\n",
        "hf://a/b/x\0",
        "hf://a b/c/x",
        "hf:/a/b/x",
        "https://huggingface.co/a/b/resolve/main/x",
        "hf://datasets/a/b/x.npz",
        "hf://spaces/a/b/x.npz",
    ],
)
def test_what_is_no_file_of_the_hub(text):
    with pytest.raises(InputError, match=r"hf://owner/repository\[@revision\]/path|comes? from"):
        parse_hub(text)


def test_is_hub(tmp_path):
    assert is_hub("hf://anything")
    assert not any(map(is_hub, ["weights.pth", "", None, tmp_path, "HF://a/b/c"]))
