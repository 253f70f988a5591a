"""Totals over a split, streams, knock-outs, and what memories did."""
