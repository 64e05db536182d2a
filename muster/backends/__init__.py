"""The places where attempts run, behind one small contract."""
