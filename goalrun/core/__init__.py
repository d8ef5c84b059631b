"""The pure part: values, decisions and texts. No clock, process, disk, network, randomness or terminal."""
