"""The feedback page: people type a prompt, hear two clips and give one the trophy."""
