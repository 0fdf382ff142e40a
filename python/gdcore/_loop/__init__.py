"""The loop of `gdcore.fit`: its data, the choice of a method, epochs, events, the history."""
