"""The command line: commands only. Heavy imports happen inside commands."""
