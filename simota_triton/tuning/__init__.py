"""How fast, never what: nothing in here may change an answer."""
