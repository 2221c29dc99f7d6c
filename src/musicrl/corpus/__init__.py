"""Tunes in, captioned clips out; and the reader of such a corpus."""
