"""Task files, probe sets, tokenisation with answer positions, and scoring."""
