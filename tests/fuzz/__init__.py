"""Damaged and crafted inputs by the thousand, each either read as an independent reader reads it or refused by name."""
