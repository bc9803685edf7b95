"""Show what a run was made from, how it went and what came out, on one page."""
