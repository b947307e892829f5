"""Physics engines behind one interface; each is imported when it is built."""
