"""Side-by-side comparison of models: clips, listening studies, statistics, report."""
