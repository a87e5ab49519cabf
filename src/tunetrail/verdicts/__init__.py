"""Which methods differ, and how sure that is. Arrays in, numbers and words out: no files here."""
