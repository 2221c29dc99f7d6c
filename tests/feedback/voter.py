"""Votes for as long as it lives and prints the key of every vote that the store acknowledged.

usage: voter.py FOLDER PAIR RATER PREFIX [BYTES]; with BYTES no file may grow beyond them; a refusal ends it.
"""

from __future__ import annotations

import itertools
import resource
import signal
import sys

from musicrl.feedback.records import CHOICES, NewVote, StorageError
from musicrl.feedback.store import PreferenceStore


def main(folder: str, pair: str, rater: str, prefix: str, limit: str | None = None) -> None:
    store = PreferenceStore(folder)
    if limit is not None:
        # Without its signal the limit makes the write itself fail, as a full disk does.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    for number in itertools.count():
        key = f"{prefix}-{number}"
        try:
            store.vote(NewVote(pair, rater, CHOICES[number % 3], "a", 1.0, 1.0, key))
        except StorageError as error:
            print(f"refused {key} {error}", flush=True)
            return
        print(key, flush=True)


main(*sys.argv[1:])
