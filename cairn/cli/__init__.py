"""`cairn`, the command line. One file for each group of verbs; heavy things are imported where they are used."""
