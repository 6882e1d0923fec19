"""What a run is asked for: tables of options, checked key by key, from files, commands and Python."""
