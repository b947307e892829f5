"""Networks and normalisers."""
