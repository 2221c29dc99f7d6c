"""The built page in the package comes from the source in `frontend/`; no Node is needed to know."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

FRONTEND = Path(__file__).parents[2] / "frontend"
STATIC = Path(__file__).parents[2] / "src/musicrl/server/static"


def source_hash() -> str:
    """What `frontend/vite.config.ts` computes: SHA-256 over the sorted list of files with their SHA-256."""
    files = [path for folder in ("src", "public") for path in (FRONTEND / folder).rglob("*") if path.is_file()]
    names = ("index.html", "package-lock.json", "package.json", "tsconfig.json", "vite.config.ts")
    files += [FRONTEND / name for name in names]
    lines = {path.relative_to(FRONTEND).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    listing = "".join(f"{lines[name]}  {name}\n" for name in sorted(lines))
    return hashlib.sha256(listing.encode()).hexdigest()


def test_the_build_is_of_this_source() -> None:
    recorded = (STATIC / "source.sha256").read_text().strip()
    assert recorded == source_hash(), "frontend/ changed: run `npm ci && npm run build` there and commit the result"


def test_scripts_weigh_less_than_100_kb() -> None:
    scripts = list(STATIC.glob("*.js"))
    assert scripts
    assert sum(len(gzip.compress(path.read_bytes())) for path in scripts) < 100_000


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    page = (STATIC / "index.html").read_text()
    assert "<style" not in page
    assert not re.search(r"\son\w+=|\sstyle=", page)
    assert all(re.search(r'src="/[^/]', script) for script in re.findall(r"<script[^>]*>", page))
    for path in STATIC.iterdir():
        addresses = set(re.findall(r"https?://[\w.-]+", path.read_text(encoding="utf-8")))
        # Names of XML vocabularies and of Svelte's error pages are never fetched.
        assert addresses <= {"http://www.w3.org", "https://svelte.dev"}, path.name


def test_versions_are_exact_and_the_lock_names_no_registry() -> None:
    package = json.loads((FRONTEND / "package.json").read_text())
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["devDependencies"].values())
    assert "dependencies" not in package
    lock = (FRONTEND / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert '"integrity"' in lock
