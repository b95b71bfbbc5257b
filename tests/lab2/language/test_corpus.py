"""Texts: where they come from, how they are divided and turned into tokens, and the windows that are cut from them."""

import errno
import functools
import hashlib
import http.server
import threading

import pytest
import torch

from lab1.engine import download, network
from lab1.engine.config import UsageError
from lab1.engine.network import Unavailable
from lab2.language import corpus, tokens
from lab2.language.corpus import ConsecutiveWindows, Corpus, RandomWindows, ShuffledWindows
from lab2.tasks import tiny
from tests.servers import Ranges, serving

VERSES = "Nel mezzo del cammin di nostra vita\nmi ritrovai per una selva oscura,\nché la diritta via era smarrita.\n"
EBOOK = (
    "\ufeffThe Project Gutenberg eBook of La Divina Commedia di Dante\r\n\r\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK LA DIVINA COMMEDIA\r\nDI DANTE ***\r\n\r\n\r\n"
    + VERSES.replace("\n", "\r\n")
    + "\r\n\r\n*** END OF THE PROJECT GUTENBERG EBOOK LA DIVINA COMMEDIA DI DANTE ***\r\nSection 1. ..."
)


@pytest.fixture
def server():
    """A web server on this machine that holds the e-book, something else than UTF-8, and nothing more."""

    class Pages(http.server.BaseHTTPRequestHandler):
        pages = {"/pg1012.txt": EBOOK.encode(), "/latin.txt": "perché".encode("latin-1")}  # noqa: RUF012
        pages |= {"/login.html": b"<html>log in</html>", "/half.txt": EBOOK[: len(EBOOK) // 2].encode()}
        pages |= {"/zeros.txt": bytes(9)}
        asked = []  # noqa: RUF012

        def do_GET(self):
            self.asked.append(self.path)
            content = self.pages.get(self.path.split("?")[0])
            self.send_response(404 if content is None and self.path != "/cut.txt" else 200)
            if self.path == "/cut.txt":
                self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    Pages.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}", Pages.asked
        found.shutdown()


def test_the_licence_is_stripped():
    assert corpus.strip_licence(EBOOK.replace("\r\n", "\n")) == VERSES
    old = (
        f"licence\n***START OF THIS PROJECT GUTENBERG EBOOK X***\n{VERSES}***END OF THIS PROJECT GUTENBERG EBOOK X***\n"
    )
    assert corpus.strip_licence(old) == VERSES
    assert corpus.strip_licence(VERSES) == VERSES


def test_downloaded_once(server, tmp_path, monkeypatch):
    address, asked = server
    monkeypatch.setattr(corpus, "COMMEDIA", (f"{address}/pg1012.txt",))
    for source in ("auto", "divina_commedia"):
        found = corpus.load_corpus(source, tmp_path / "data")
        assert (found.name, found.text) == ("divina_commedia", VERSES)
    assert (tmp_path / "data" / "divina_commedia.txt").read_text(encoding="utf-8") == VERSES
    assert len(asked) == 2  # whether the network is there, then the text
    assert corpus.load_corpus(f"{address}/pg1012.txt?x=1", tmp_path) == Corpus("pg1012", VERSES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "pg1012.txt"]


def test_a_download_that_fails_leaves_nothing(server, tmp_path):
    address, _ = server
    for page, reason in (
        ("nowhere.txt", "127.0.0.1 does not have it (HTTP 404 Not Found): get it elsewhere"),
        ("latin.txt", f"what {address}/latin.txt sends is no UTF-8 text (byte 5): get it elsewhere"),
        ("zeros.txt", f"what {address}/zeros.txt sends is no text: get it elsewhere"),
        ("cut.txt", "127.0.0.1 broke off the connection after 0.0 of 0.0 MB: run it again"),
    ):
        with pytest.raises(UsageError) as failure:
            corpus.load_corpus(f"{address}/{page}", tmp_path)
        whole = f"the text {address}/{page} could not be downloaded: {reason}, or put it in {tmp_path / page}"
        assert str(failure.value) == whole
        assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_another_download_is_no_part_of_a_text(server, tmp_path):
    """Nothing tells whether it is of the text that the server has now."""
    address, _ = server
    (tmp_path / "pg1012.txt.part").write_bytes(EBOOK[:100].upper().encode())
    assert corpus.load_corpus(f"{address}/pg1012.txt", tmp_path).text == VERSES
    assert [path.name for path in tmp_path.iterdir()] == ["pg1012.txt"]


def test_a_text_that_breaks_off_is_gone_on_with(tmp_path):
    content, asked = EBOOK.encode(), []
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "pg1012.txt").write_bytes(content)
    with serving(functools.partial(Ranges, directory=str(tmp_path / "shelf"), most=200, asked=asked)) as address:
        assert corpus.load_corpus(f"{address}pg1012.txt", tmp_path).text == VERSES
    assert asked == [f"bytes={start}-" for start in range(200, len(content), 200)]


def test_a_text_that_cannot_be_written_is_not_the_networks_fault(server, tmp_path, monkeypatch):
    address, _ = server
    monkeypatch.setattr(network.os, "access", lambda *_: False)
    with pytest.raises(Unavailable, match=r"cannot be put there, as .* is not writable: name another folder with "):
        corpus.load_corpus(f"{address}/pg1012.txt", tmp_path)
    monkeypatch.undo()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "open", full, raising=False)
    with pytest.raises(Unavailable) as failure:
        corpus.load_corpus(f"{address}/pg1012.txt", tmp_path)
    assert "could not be put in" in str(failure.value)
    assert "(No space left on device): make room" in str(failure.value)


def test_a_second_address(server, tmp_path, monkeypatch, capsys):
    address, asked = server
    for number, page in enumerate(("nowhere.txt", "login.html", "half.txt", "cut.txt", "latin.txt")):
        monkeypatch.setattr(corpus, "COMMEDIA", (f"{address}/{page}", f"{address}/pg1012.txt"))
        before = len(asked)
        found = corpus.load_corpus("divina_commedia", tmp_path / str(number))
        assert (found.name, found.text) == ("divina_commedia", VERSES)
        # Whether the network is there was asked of both at once, so their order is that of no one request.
        assert {*asked[before:]} == {f"/{page}", "/pg1012.txt"}
        assert [path.name for path in (tmp_path / str(number)).iterdir()] == ["divina_commedia.txt"]
    monkeypatch.setattr(corpus, "COMMEDIA", (f"{address}/nowhere.txt", f"{address}/login.html"))
    with pytest.raises(Unavailable, match=r"does not have it \(HTTP 404 Not Found\): get it elsewhere, or put it in "):
        corpus.load_corpus("divina_commedia", tmp_path / "none")
    monkeypatch.setattr(corpus, "COMMEDIA", (f"{address}/login.html", f"{address}/half.txt"))
    with pytest.raises(Unavailable, match=r"what .*/login\.html sends is not the book: get it elsewhere, or "):
        corpus.load_corpus("divina_commedia", tmp_path / "none")
    capsys.readouterr()
    assert corpus.load_corpus("auto", tmp_path / "none").name == "python"
    assert "standard library instead" in capsys.readouterr().err


def test_another_edition_is_said(tmp_path, monkeypatch, capsys):
    place = tmp_path / "divina_commedia.txt"
    place.write_text(VERSES, encoding="utf-8")
    assert corpus.load_corpus("divina_commedia", tmp_path).text == VERSES
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{place} is not letter by letter the text of the published runs")
    monkeypatch.setattr(corpus, "COMMEDIA_SHA256", hashlib.sha256(VERSES.encode()).hexdigest())
    corpus.load_corpus("divina_commedia", tmp_path)
    assert capsys.readouterr().err == ""


def test_without_a_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(corpus, "COMMEDIA", ("http://127.0.0.1:9/pg1012.txt",))  # nobody listens there
    found = corpus.load_corpus("auto", tmp_path)
    assert found.name == "python"
    assert "import argparse" in found.text
    assert len(found.text) == 1_000_000
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "divina_commedia.txt") in line
    assert "standard library instead" in line
    with pytest.raises(UsageError, match=r"divina_commedia\.txt and cannot be reached on the network"):
        corpus.load_corpus("divina_commedia", tmp_path)
    with pytest.raises(UsageError, match="is not downloaded in a dry run"):
        corpus.load_corpus("divina_commedia", tmp_path, download=False)


def test_files(tmp_path):
    for end in ("\r\n", "\r"):
        (tmp_path / "own.txt").write_bytes(VERSES.replace("\n", end).encode())
        assert corpus.load_corpus(str(tmp_path / "own.txt"), tmp_path) == Corpus("own", VERSES)
    (tmp_path / "latin.txt").write_bytes("ché".encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin\.txt is not UTF-8 text \(byte 2\)"):
        corpus.load_corpus(str(tmp_path / "latin.txt"), tmp_path)
    (tmp_path / "zeros.txt").write_bytes(bytes(5000))
    with pytest.raises(UsageError, match=r"zeros\.txt is no text: it holds bytes of value 0"):
        corpus.load_corpus(str(tmp_path / "zeros.txt"), tmp_path)
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"empty has 0 characters: at least 1,000 are needed"):
        corpus.load_corpus(str(tmp_path / "empty.txt"), tmp_path).parts()
    for missing in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(UsageError, match="no such file"):
            corpus.load_corpus(str(missing), tmp_path)


def test_parts_are_contiguous():
    corpus = Corpus("numbers", "".join(chr(300 + place) for place in range(1010)))
    parts = corpus.parts()
    assert "".join(parts.values()) == corpus.text
    assert {name: len(part) for name, part in parts.items()} == {"train": 909, "validation": 50, "test": 51}
    with pytest.raises(UsageError, match="at least 1,000"):
        Corpus("short", VERSES).parts()


def test_characters():
    tokenizer = tokens.Characters("banana!")
    assert (len(tokenizer), tokenizer.characters) == (4, ["!", "a", "b", "n"])
    assert tokenizer.encode("nab!") == [3, 1, 2, 0]
    assert tokenizer.decode([3, 1, 2, 0]) == "nab!"
    with pytest.raises(UsageError, match="'x' is not in this model's vocabulary: !abn"):
        tokenizer.encode("bax")


def test_byte_pairs():
    tokenizer = tokens.BytePairs.train("low low low lower lowest " * 20, 259)
    assert len(tokenizer) == 259
    # The first merges are l+o, lo+w, and the space before: "Ġlow" or, counted alike, one within it.
    assert len(tokenizer.encode("low")) < 3
    strange = "ché «Ïo» 你好\n\t"
    assert tokenizer.decode(tokenizer.encode(strange)) == strange
    with pytest.raises(UsageError, match="starts from 256"):
        tokens.BytePairs.train("low", 255)


def test_every_tokenizer_is_made_again_from_its_description(tmp_path):
    tiny.write_model(tmp_path / "bert", [VERSES])
    for kind in ("characters", "bpe-300", str(tmp_path / "bert")):
        tokenizer = tokens.make(kind, VERSES, tmp_path)
        again = tokens.build(tokenizer.describe(), tmp_path)
        found = tokenizer.encode("mi ritrovai")
        assert again.encode("mi ritrovai") == found
        assert again.decode(found) == tokenizer.decode(found) == "mi ritrovai"
        assert len(again) == len(tokenizer)
    assert tokenizer.encode("x y") == tokenizer.tokenizer.convert_tokens_to_ids(tokenizer.tokenizer.tokenize("x y"))
    with pytest.raises(UsageError, match="none of this lab's"):
        tokens.build({"kind": "words"})
    with pytest.raises(UsageError, match="put its files there"):
        tokens.make("openai-community/gpt2", VERSES, tmp_path, download=False)


def test_random_windows():
    train = RandomWindows(torch.arange(100), 8, 5, seed=3, steps=10, interval=4)
    assert len(train) == 4
    epochs = [list(train.epoch(number)) for number in range(4)]
    assert [len(batches) for batches in epochs] == [4, 4, 2, 0]  # ten steps, not twelve
    for inputs, targets in (batch for batches in epochs for batch in batches):
        assert inputs.shape == targets.shape == (5, 8)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert torch.equal(inputs + 1, targets)  # the text is 0, 1, 2, ...
    # From the middle on, and by the step: the same.
    assert torch.equal(next(train.epoch(1, 2))[0], epochs[1][2][0])
    assert torch.equal(train.batch(6)[0], epochs[1][2][0])
    assert not torch.equal(train.batch(6)[0], train.batch(7)[0])
    other = RandomWindows(torch.arange(100), 8, 5, seed=4, steps=10, interval=4)
    assert not torch.equal(train.batch(6)[0], other.batch(6)[0])
    # Every place is reached, the first and the last.
    small = RandomWindows(torch.arange(10), 7, 64, seed=0, steps=1, interval=1)
    assert set(small.batch(0)[0][:, 0].tolist()) == {0, 1, 2}
    with pytest.raises(UsageError, match="8 tokens to learn from: a context of 8 needs more"):
        RandomWindows(torch.arange(8), 8, 5, seed=0, steps=1, interval=1)


def test_shuffled_windows_cover_the_text_once_a_pass():
    # 103 tokens, windows of 8 and the one after: 103 // 8 - 1 = 11 windows a pass, two passes are 22 = 11 batches of 2.
    train = ShuffledWindows(torch.arange(103), 8, 2, seed=3, steps=22, interval=4)
    batches = [train.batch(step) for step in range(22)]
    assert all(torch.equal(inputs + 1, targets) for inputs, targets in batches)
    windows = torch.cat([inputs for inputs, _ in batches])
    cuts, orders = [], []
    for number in range(4):
        one = windows[11 * number : 11 * (number + 1)]
        first = int(one.min())
        assert sorted(one.flatten().tolist()) == list(range(first, first + 88))  # each token once, no gap
        assert 0 <= first <= 103 - 1 - 88
        cuts.append(first)
        orders.append(tuple((one[:, 0] - first).tolist()))
    assert len(set(cuts)) > 1  # another pass cuts elsewhere
    assert len(set(orders)) == 4  # and in another order
    # A function of seed and step alone, wherever it begins.
    again = ShuffledWindows(torch.arange(103), 8, 2, seed=3, steps=22, interval=4)
    assert torch.equal(next(again.epoch(2, 3))[0], batches[11][0])
    other = ShuffledWindows(torch.arange(103), 8, 2, seed=4, steps=22, interval=4)
    assert not torch.equal(other.batch(5)[0], batches[5][0])


def test_a_batch_of_more_windows_than_the_text_has():
    # Ten tokens, windows of 4 and the one after: 10 // 4 - 1 = 1 window a pass, and five passes in a batch.
    starts = ShuffledWindows(torch.arange(10), 4, 5, seed=0, steps=40, interval=40)
    places = {int(start) for step in range(40) for start in starts.starts(step)}
    assert places == {0, 1, 2, 3, 4, 5}
    assert starts.batch(0)[0].shape == (5, 4)
    # One token more than a window: it begins at the first, always.
    least = ShuffledWindows(torch.arange(9), 8, 3, seed=0, steps=1, interval=1)
    assert least.starts(0).tolist() == [0, 0, 0]


def test_consecutive_windows_predict_every_token_once():
    held_out = ConsecutiveWindows(torch.arange(24), 5, 3, characters=60)
    batches = list(held_out)
    assert [tuple(inputs.shape) for inputs, _ in batches] == [(3, 5), (1, 5), (1, 3)]
    assert torch.cat([targets.flatten() for _, targets in batches]).tolist() == list(range(1, 24))
    assert all(torch.equal(inputs + 1, targets) for inputs, targets in batches)
    assert held_out.characters_per_token == 2.5
    assert len(held_out) == 3
    assert len(list(ConsecutiveWindows(torch.arange(24), 5, 3, characters=60, limit=2))) == 2
    assert [tuple(inputs.shape) for inputs, _ in ConsecutiveWindows(torch.arange(4), 5, 3, 4)] == [(1, 3)]
    assert [tuple(inputs.shape) for inputs, _ in ConsecutiveWindows(torch.arange(6), 5, 3, 6)] == [(1, 5)]


@pytest.mark.parametrize("kind", [RandomWindows, ShuffledWindows])
def test_processes_share_windows(monkeypatch, kind):
    made = {}
    for number in range(3):
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", "3")
        train = kind(torch.arange(100), 8, 5, seed=3, steps=1, interval=1)
        held_out = ConsecutiveWindows(torch.arange(24), 5, 2, characters=24)
        made[number] = (train.batch(0)[0], [targets for _, targets in held_out])
    monkeypatch.undo()
    whole = kind(torch.arange(100), 8, 5, seed=3, steps=1, interval=1).batch(0)[0]
    assert [len(inputs) for inputs, _ in made.values()] == [2, 2, 1]
    assert sorted(torch.cat([inputs for inputs, _ in made.values()]).tolist()) == sorted(whole.tolist())
    seen = torch.cat([targets.flatten() for _, batches in made.values() for targets in batches])
    assert sorted(seen.tolist()) == list(range(1, 24))
