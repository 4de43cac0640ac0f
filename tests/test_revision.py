"""The revision against git itself, and where there is none."""

import subprocess

import pytest

from difftalk_pl import revision as revisions


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder in the package's place, and git in it."""
    monkeypatch.setattr(revisions, "CHECKOUT", tmp_path)

    def git(*words):
        name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *name, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return git


def asked():
    return revisions.revision.__wrapped__()


def test_a_commit_and_whether_tracked_files_differ(checkout, tmp_path):
    checkout("init", "--quiet")
    (tmp_path / "code.py").write_text("one")
    checkout("add", ".")
    checkout("commit", "--quiet", "-m", "one")
    checkout("tag", "-a", "-m", "v1", "v1")
    commit = checkout("rev-parse", "HEAD")[:7]
    assert asked() == commit
    (tmp_path / "untracked.txt").write_text("")
    assert asked() == commit
    (tmp_path / "code.py").write_text("two")
    assert asked() == f"{commit}-dirty"


def test_a_worktree_is_a_checkout_whatever_git_has_been_told(checkout, tmp_path, monkeypatch):
    checkout("init", "--quiet")
    checkout("commit", "--quiet", "--allow-empty", "-m", "one")
    checkout("worktree", "add", "--quiet", str(tmp_path / "tree"))
    monkeypatch.setattr(revisions, "CHECKOUT", tmp_path / "tree")
    commit = checkout("rev-parse", "HEAD")[:7]
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert asked() == commit


def test_none_outside_of_a_checkout_without_commits_and_without_git(checkout, tmp_path, monkeypatch):
    checkout("init", "--quiet")
    assert asked() is None, "no commit yet"
    monkeypatch.setattr(revisions, "CHECKOUT", tmp_path / "site-packages")
    assert asked() is None, "a repository around an installed package"
    monkeypatch.setattr(revisions, "CHECKOUT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert asked() is None


def test_a_git_that_does_not_answer_is_left_alone(checkout, tmp_path, monkeypatch):
    checkout("init", "--quiet")
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(revisions, "SECONDS", 0.2)
    assert asked() is None
