"""Everything that touches the world, one file per port; each third-party library has one home."""
