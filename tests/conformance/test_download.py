"""Our client fetches targets: the right bytes under the right name, or nothing."""

from __future__ import annotations

import http.client
import os
from pathlib import Path

import pytest

from tests.conformance.conftest import Client
from tests.conformance.publisher import EVERY, Publisher
from tests.conformance.store import Store
from tests.conformance.web import fetch


def publish(publisher: Publisher) -> None:
    publisher.publish("targets", "snapshot", "timestamp")


@pytest.mark.parametrize("name", ["file.txt", "path/to/a/file.txt", "../outside.txt", "a name with #?%2F and é"])
def test_target_is_asked_for_by_its_digest_and_stored_inside_the_folder(
    ours: Client, publisher: Publisher, name: str
) -> None:
    # python-tuf leaves the quoting of names in URLs to its caller.
    path = publisher.add_target(name, b"target file contents")
    publish(publisher)
    assert ours.download(name) == 0
    assert ours.downloaded() == [b"target file contents"]
    assert publisher.asked[-1] == path
    assert {found.name for found in ours.folder.iterdir()} == {"metadata", "targets", "initial_root.json"}


def test_download_refreshes_first_also_where_there_is_no_such_target(client: Client, publisher: Publisher) -> None:
    assert client.download("nothing") == 1
    assert client.versions() == dict.fromkeys(EVERY, 1)
    assert client.downloaded() == []


def test_target_that_is_there_is_not_asked_for_again(ours: Client, publisher: Publisher) -> None:
    # python-tuf has a call of its own for this.
    path = publisher.add_target("a", b"a")
    publish(publisher)
    assert ours.download("a") == 0
    [file] = ours.targets.iterdir()
    os.utime(file, ns=(1, 1))
    assert ours.download("a") == 0
    assert publisher.asked.count(path) == 1
    assert file.stat().st_mtime_ns == 1


def test_several_targets_are_fetched_in_order_up_to_the_first_that_fails(client: Client, publisher: Publisher) -> None:
    for name in ("a", "b", "c"):
        publisher.add_target(name, name.encode())
    publish(publisher)
    assert client.download("a", "c") == 0
    assert client.downloaded() == [b"a", b"c"]
    assert client.download("nothing", "b") == 1
    assert client.downloaded() == [b"a", b"c"]


def test_stored_target_that_was_changed_is_fetched_again(client: Client, publisher: Publisher) -> None:
    publisher.add_target("a", b"a")
    publish(publisher)
    assert client.download("a") == 0
    (client.targets / "a").write_bytes(b"b")
    assert client.download("a") == 0
    assert client.downloaded() == [b"a"]


@pytest.mark.parametrize("data", [b"malicious", b"honest and more", b"hones", b"", None])
def test_other_bytes_than_signed_are_not_stored(client: Client, publisher: Publisher, data: bytes | None) -> None:
    path = publisher.add_target("a", b"honest")
    publish(publisher)
    if data is None:
        del publisher.files[path]
    else:
        publisher.files[path] = data
    assert client.download("a") == 1
    assert client.downloaded() == []


def test_new_contents_replace_the_old_and_forged_ones_do_not(client: Client, publisher: Publisher) -> None:
    for number in range(3):
        path = publisher.add_target("a", f"contents {number}".encode())
        publish(publisher)
        publisher.files[path], honest = b"forged", publisher.files[path]
        assert client.download("a") == 1
        publisher.files[path] = honest
        assert client.download("a") == 0
        assert client.downloaded() == [honest]


def test_target_that_left_the_newest_targets_is_not_fetched(client: Client, publisher: Publisher) -> None:
    publisher.add_target("a", b"a")
    publish(publisher)
    del publisher.targets.targets["a"]
    publish(publisher)
    assert client.download("a") == 1
    assert client.downloaded() == []


def test_the_reader_takes_no_more_than_it_asked_for_and_speaks_plain_http_only(
    client: Client, publisher: Publisher
) -> None:
    publisher.files["metadata/big"] = b"x" * 100_000
    assert fetch(client.url("metadata"), "big", 10) == b"x" * 11
    assert fetch(client.url("metadata/"), "none", 10) is None
    for url in ("https://127.0.0.1/", "file:///etc/", "nothing"):
        with pytest.raises(OSError, match="not a http URL"):
            fetch(url, "passwd", 10)
    with pytest.raises((OSError, http.client.HTTPException)):
        fetch("http://127.0.0.1:1/", "x", 10)


def test_files_are_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep("root", b"old")
    (tmp_path / "root.json.part").mkdir()  # so that the new one cannot be written
    with pytest.raises(OSError, match="directory"):
        store.keep("root", b"new")
    assert store.root() == b"old"
