"""Whether revisions hold what their names say."""
