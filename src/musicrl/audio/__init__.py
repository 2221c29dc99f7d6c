"""Sound: reading and writing clips, loudness, features, measured facts."""
