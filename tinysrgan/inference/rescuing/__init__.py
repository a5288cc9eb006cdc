"""Reads QR codes that are too small or damaged for a reader. ``search`` calls the other modules."""
