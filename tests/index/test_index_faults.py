"""What goes wrong around an index is said in one line, and loses nothing."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from hostile_index import make_checksums_fit

from idml_hf import IDMLIndex, files, index_files
from idml_hf.index_files import IndexFileError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    rows = np.random.default_rng(0).standard_normal((50, 8))
    IDMLIndex.from_embeddings(rows, rows[:, :3], labels=np.arange(50) % 5, class_names=list("abcde")).save(folder)
    return folder


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_every_truncated_or_missing_file_is_named(saved: Path) -> None:
    assert len(files_of(saved)) == 5
    for path in files_of(saved):
        whole = path.read_bytes()
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(IndexFileError, match=path.name):
                IDMLIndex.load(saved)
        path.unlink()
        with pytest.raises((IndexFileError, FileNotFoundError), match=path.name):
            IDMLIndex.load(saved)
        path.write_bytes(whole)
    assert len(IDMLIndex.load(saved)) == 50


def test_a_folder_that_is_no_index_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no index: there is no index\.json"):
        IDMLIndex.load(tmp_path)
    for content in ("[]", "{}", '{"format": 1, "version": "../../etc", "files": {}}', '{"format": 99}'):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(IndexFileError, match=r"index\.json"):
            IDMLIndex.load(tmp_path)


def test_a_manifest_cannot_name_files_outside(saved: Path) -> None:
    manifest = json.loads((saved / "index.json").read_text())
    (saved.parent / "secret.npy").write_bytes(b"")
    manifest["files"] = {"../../secret.npy": 0}
    (saved / "index.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexFileError, match="names files that no index has"):
        IDMLIndex.load(saved)


def test_pickled_arrays_are_refused(saved: Path) -> None:
    (path,) = saved.rglob("semantic.npy")
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    make_checksums_fit(saved)
    with pytest.raises(IndexFileError, match=r"semantic\.npy is damaged"):
        IDMLIndex.load(saved)


@pytest.mark.parametrize("step", ["arrays", "manifest", "rename"])
def test_a_full_disk_leaves_the_old_index(saved: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = IDMLIndex.load(saved)
    index.add_embeddings(np.ones((1, 8)), np.ones((1, 3)), labels=[0], class_names=["a"])
    before = {path: path.read_bytes() for path in files_of(saved)}

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {
        "arrays": (index_files.pq, "write_table"),
        "manifest": (index_files, "replacing"),
        "rename": (files.os, "replace"),
    }
    with monkeypatch.context() as patched:
        patched.setattr(*target[step], full)
        with pytest.raises(OSError, match=r"the disk is full.*is intact"):
            index.save(saved)
    assert {path: path.read_bytes() for path in files_of(saved)} == before
    assert len(IDMLIndex.load(saved)) == 50
    index.save(saved)
    assert len(IDMLIndex.load(saved)) == 51


CHILD = """
    import os, resource, signal, sys
    import numpy as np
    from idml_hf import IDMLIndex
    from idml_hf import index_files

    index = IDMLIndex.load(sys.argv[1])
    index.add_embeddings(np.ones((40_000, 8)), np.ones((40_000, 3)), labels=[0] * 40_000, class_names=["a"])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, resource.RLIM_INFINITY))
    try:
        index.save(sys.argv[1])
    except OSError as error:
        print(error, len(list(index._origin[0].glob("data-*"))), flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    index_files.replacing = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
    index.save(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits and signals of POSIX")
def test_a_writer_that_runs_out_of_space_and_is_then_killed_leaves_the_old_index(saved: Path) -> None:
    before = {path: path.read_bytes() for path in files_of(saved)}
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(saved)]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == -9, child.stderr
    assert "what was there before is intact 1" in child.stdout
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(saved.glob("data-*"))) == 2
    IDMLIndex.load(saved).save(saved)
    assert len(list(saved.glob("data-*"))) == 1
    assert len(IDMLIndex.load(saved)) == 50


def test_a_second_writer_is_told_and_nothing_is_lost(saved: Path) -> None:
    mine, theirs = IDMLIndex.load(saved), IDMLIndex.load(saved)
    mine.remove([0])
    mine.save(saved)
    theirs.remove([1, 2])
    with pytest.raises(RuntimeError, match="changed by another process since it was loaded"):
        theirs.save(saved)
    assert len(IDMLIndex.load(saved)) == 49
    theirs.save(saved.parent / "other")
    assert len(IDMLIndex.load(saved.parent / "other")) == 48
    mine.remove([7])
    mine.save(saved)
    assert len(IDMLIndex.load(saved)) == 48
    with filelock.FileLock(saved / ".lock"), pytest.raises(RuntimeError, match="another process is writing"):
        IDMLIndex.load(saved).save(saved)


def test_an_open_index_goes_on_when_another_process_saves(saved: Path) -> None:
    open_one, writer = IDMLIndex.load(saved), IDMLIndex.load(saved)
    query = np.asarray(writer.gallery.semantic[9:10])
    writer.remove(range(9))
    writer.save(saved)
    assert open_one.search_embeddings(query, k=1).ids.tolist() == [[9]]


def test_a_read_during_a_save_finds_one_whole_index(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_files = index_files._read_files
    calls = []

    def save_in_between(folder: Path, manifest: Any, verify: bool) -> Any:
        calls.append(manifest["version"])
        if len(calls) == 1:
            monkeypatch.setattr(index_files, "_read_files", read_files)
            smaller = IDMLIndex.load(saved)
            smaller.remove([0])
            smaller.save(saved)
        return read_files(folder, manifest, verify)

    monkeypatch.setattr(index_files, "_read_files", save_in_between)
    assert len(IDMLIndex.load(saved)) == 49


def test_emptied_and_filled_again(saved: Path) -> None:
    index = IDMLIndex.load(saved)
    index.remove(index.gallery.ids)
    with pytest.raises(ValueError, match="the index is empty"):
        index.search_embeddings(np.ones((1, 8)))
    index.save(saved)
    index = IDMLIndex.load(saved)
    index.add_embeddings(np.eye(8)[:2])
    assert index.search_embeddings(np.eye(8)[1:2], k=5).ids.tolist() == [[51, 50]]
